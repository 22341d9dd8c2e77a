//! What callers and operators write.

use std::{cell::RefCell, collections::HashMap};

use llama_stack_core::{Code, Manifest};
use llama_stack_memory::filter;
use llama_stack_proto::v1::{Filter, Value, upload_file_request::Message, value::Value as Is};
use llama_stack_server::fuzz;
use prost::Message as _;

/// A manifest is read, or refused in one line that names its file.
pub(crate) fn manifest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(error) = Manifest::parse_with(&text, "m.yaml", &|name| (name != "NONE").then(|| format!("value of {name}"))) {
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with("m.yaml"), "{}", error.message());
    }
}

/// A form is an upload of which no byte was made up, or an error of the caller.
pub(crate) fn multipart(data: &[u8]) {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> =
            RefCell::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    }
    let read = RUNTIME.with_borrow(|runtime| runtime.block_on(fuzz::form("b", data.to_vec())));
    match read {
        Ok(sent) => {
            let pieces = sent.iter().map(|message| match &message.message {
                Some(Message::Data(data)) => data.len(),
                _ => 0,
            });
            assert!(pieces.sum::<usize>() <= data.len());
        }
        Err(error) => assert!(matches!(error.code(), Code::InvalidArgument | Code::TooLarge), "{error:?}"),
    }
}

/// A filter that is read is one that memory takes, and is shown as one that reads the same.
pub(crate) fn filters(data: &[u8]) {
    let Ok(written) = serde_json::from_slice(data) else { return };
    match fuzz::filter(&written) {
        Ok(Some((read, shown))) => {
            meets(&read);
            let (again, _) = fuzz::filter(&shown).expect("what is shown can be read").expect("it is a filter");
            assert_eq!(read, again);
        }
        Ok(None) => {}
        Err(error) => assert_eq!(error.code(), Code::InvalidArgument),
    }
}

/// The same, as gRPC brings it.
pub(crate) fn filter_messages(data: &[u8]) {
    if let Ok(read) = Filter::decode(data) {
        meets(&read);
    }
}

fn meets(read: &Filter) {
    let attributes = HashMap::from([
        ("key".to_owned(), Value { value: Some(Is::Number(1.5)) }),
        ("lang".to_owned(), Value { value: Some(Is::Text("en".into())) }),
    ]);
    match filter::check(read) {
        Ok(()) => drop(filter::matches(read, &attributes)),
        Err(error) => {
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().len() <= 2_000, "a message is to be read");
        }
    }
}

/// A token serves the list that gave it, and goes on after an id that the database can be asked for.
pub(crate) fn cursors(data: &[u8]) {
    let token = String::from_utf8_lossy(data);
    let list = "turns\nsession_1";
    if let Some(after) = llama_stack_store::page_after(list, &token) {
        assert!(!after.is_empty() && !after.contains('\0'));
        assert!(llama_stack_store::page_after("agents", &token).is_none(), "it serves two lists");
    }
    let items = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    if let Ok((page, next)) = llama_stack_core::page::slice(items, |item| item, 1, 1, &token) {
        assert!(page.len() <= 1 && next != *token);
    }
}

/// What a caller writes of where it is counts for nothing once a proxy has added where it was asked from.
pub(crate) fn forwarded(data: &[u8]) {
    for (header, added) in [("x-forwarded-for", ", 203.0.113.9"), ("forwarded", ", for=203.0.113.9")] {
        fuzz::caller(header, data);
        if let Some(caller) = fuzz::caller(header, &[data, added.as_bytes()].concat()) {
            assert_eq!(caller.to_string(), "203.0.113.9");
        }
    }
}
