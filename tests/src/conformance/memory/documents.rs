//! Documents: inserted, replaced, listed, renamed, deleted; in the background; and ready chunks.

use std::{collections::HashSet, sync::Arc};

use futures::StreamExt as _;
use llama_stack_core::{Code, Memory, ids};
use llama_stack_proto::v1::{
    Bank, BankKind, CancelIngestionRequest, ChunkingStrategy, ContentPart, CreateBankRequest, DeleteDocumentsRequest, Document,
    DocumentStatus, Filter, GetDocumentRequest, GetIngestionRequest, InsertChunksRequest, InsertDocumentsRequest, ListChunksRequest,
    ListDocumentsRequest, SearchMode, UpdateDocumentRequest, content_part::Part, document::Content, filter,
};
use tokio::time::timeout;

use super::{NEVER, bank_of, chunk, chunks, found, insert, inserted, made, query, somebody, text, value, vector_bank, with};

pub async fn all(memory: Arc<dyn Memory>) {
    what_was_inserted_is_there(memory.clone()).await;
    an_id_that_is_there_is_replaced(memory.clone()).await;
    of_several_the_wrong_ones_are_told(memory.clone()).await;
    a_long_document_has_several_chunks_with_their_places(memory.clone()).await;
    documents_are_listed_in_pages(memory.clone()).await;
    attributes_change_in_what_is_found(memory.clone()).await;
    what_was_deleted_is_not_found(memory.clone()).await;
    what_has_expired_is_not_found(memory.clone()).await;
    ready_chunks_are_checked_one_by_one(memory.clone()).await;
    chunks_bring_what_is_known_of_their_documents(memory.clone()).await;
    a_content_goes_in_parts(memory.clone()).await;
    chunks_are_listed_once_with_their_vectors(memory.clone()).await;
    values_are_kept_by_their_key(memory.clone()).await;
    the_background_tells_how_far_it_is(memory.clone()).await;
    files_that_are_not_there_are_told(memory).await;
}

pub async fn what_was_inserted_is_there(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let document = Document { title: "Pets".into(), ..with(text("", "the cat sat on the mat"), &[("year", super::number(2020.0))]) };
    let answer = insert(&memory, &cx, &bank, vec![document]).await.unwrap();
    let id = answer.document_ids[0].clone();
    assert!(!id.is_empty());
    let request = GetDocumentRequest { bank_id: bank.id.clone(), document_id: id.clone(), ..GetDocumentRequest::default() };
    let there = memory.get_document(&cx, request).await.unwrap();
    assert_eq!((there.status(), there.title.as_str(), there.chunk_count), (DocumentStatus::Completed, "Pets", 1));
    assert_eq!(there.content, Some(Content::Text("the cat sat on the mat".into())));
    assert_eq!((there.bytes, there.sha256.len()), (22, 64));
    for mode in [SearchMode::Vector, SearchMode::Keyword, SearchMode::Hybrid] {
        let answer = memory.query(&cx, query(&bank, "cat", mode)).await.unwrap();
        let chunk = answer.chunks[0].chunk.clone().unwrap();
        assert_eq!(
            (chunk.document_id.as_str(), chunk.text.as_str(), chunk.title.as_str()),
            (id.as_str(), "the cat sat on the mat", "Pets")
        );
        assert_eq!((answer.chunks[0].bank_id.as_str(), chunk.vector.len()), (bank.id.as_str(), 0));
        assert_eq!(chunk.attributes.get("year"), Some(&super::number(2020.0)));
    }
}

pub async fn an_id_that_is_there_is_replaced(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let long = |word: &str| (0..400).map(|n| format!("{word} {n}. ")).collect::<String>();
    inserted(&memory, &cx, &bank, vec![text("a", &long("walrus")), text("b", "dogs bark")]).await;
    inserted(&memory, &cx, &bank, vec![text("a", "now about penguins")]).await;
    assert!(found(&memory, &cx, query(&bank, "walrus", SearchMode::Keyword)).await.is_empty());
    assert_eq!(found(&memory, &cx, query(&bank, "penguins", SearchMode::Keyword)).await, ["a"]);
    let listed = memory.list_chunks(&cx, ListChunksRequest { bank_id: bank.id.clone(), ..ListChunksRequest::default() }).await.unwrap();
    assert_eq!(listed.chunks.len(), 2);
}

pub async fn of_several_the_wrong_ones_are_told(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let nan = with(text("nan", "x"), &[("a", super::number(f64::NAN))]);
    let documents =
        vec![text("a", "cats"), text("b", ""), text("a", "twice"), text("c\n", "x"), Document::default(), nan, text("d", "dogs")];
    let answer = insert(&memory, &cx, &bank, documents).await.unwrap();
    assert_eq!(answer.document_ids, ["a", "d"]);
    let failed: Vec<u32> = answer.failures.iter().map(|failure| failure.index).collect();
    assert_eq!(failed, [1, 2, 3, 4, 5]);
    for failure in answer.failures {
        let error = failure.error.unwrap();
        assert_eq!(error.code, "INVALID_ARGUMENT");
        assert!(!error.message.is_empty());
    }
    let crooked = ChunkingStrategy { max_chunk_tokens: 100, overlap_tokens: 90, ..ChunkingStrategy::default() };
    let request = InsertDocumentsRequest {
        bank_id: bank.id.clone(),
        documents: vec![text("x", "y")],
        chunking: Some(crooked),
        ..InsertDocumentsRequest::default()
    };
    assert_eq!(memory.insert_documents(&cx, request).await.unwrap_err().field(), Some("chunking.overlap_tokens"));
    assert_eq!(insert(&memory, &cx, &bank, vec![]).await.unwrap_err().field(), Some("documents"));
}

pub async fn a_long_document_has_several_chunks_with_their_places(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let line = |n: u32| format!("Line {n} tells of the animal number {n} and of where it lives.\n\n");
    let whole: String = (0..60).map(line).collect();
    inserted(&memory, &cx, &bank, vec![text("long", &whole)]).await;
    let request = ListChunksRequest { bank_id: bank.id.clone(), document_id: "long".into(), ..ListChunksRequest::default() };
    let listed = memory.list_chunks(&cx, request).await.unwrap().chunks;
    assert!(listed.len() > 1, "one chunk of {} bytes", whole.len());
    let mut before = 0;
    for (chunk, index) in listed.iter().zip(0..) {
        let position = chunk.position.clone().unwrap();
        assert_eq!(chunk.index, index);
        assert!(position.line_start > before && position.line_end >= position.line_start, "{position:?} after {before}");
        before = position.line_start;
    }
    let about: HashSet<String> = listed.iter().flat_map(|chunk| chunk.text.lines().map(str::to_owned)).collect();
    assert!((0..60).all(|n| about.contains(line(n).trim())), "a line is in no chunk");
}

pub async fn documents_are_listed_in_pages(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let ids: Vec<String> = ["m", "z", "a", "k", "b"].map(str::to_owned).to_vec();
    for id in &ids {
        inserted(&memory, &cx, &bank, vec![text(id, "something")]).await;
    }
    // Again: it keeps its place.
    inserted(&memory, &cx, &bank, vec![text("z", "something else")]).await;
    for (newest_first, expected) in [(false, ids.clone()), (true, ids.iter().rev().cloned().collect())] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListDocumentsRequest {
                bank_id: bank.id.clone(),
                page_size: 2,
                page_token,
                newest_first,
                ..ListDocumentsRequest::default()
            };
            let page = memory.list_documents(&cx, request).await.unwrap();
            assert!(page.documents.iter().all(|document| document.content.is_none()));
            seen.extend(page.documents.into_iter().map(|document| document.id));
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        assert_eq!(seen, expected);
    }
    let failed = DocumentStatus::Failed.into();
    let request = ListDocumentsRequest { bank_id: bank.id.clone(), status: failed, ..ListDocumentsRequest::default() };
    assert!(memory.list_documents(&cx, request).await.unwrap().documents.is_empty());
}

pub async fn attributes_change_in_what_is_found(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    inserted(&memory, &cx, &bank, vec![with(text("a", "cats"), &[("lang", value("en"))])]).await;
    let change = UpdateDocumentRequest {
        bank_id: bank.id.clone(),
        document_id: "a".into(),
        attributes: [("lang".to_owned(), value("de"))].into(),
        title: Some("Katzen".into()),
    };
    let now = memory.update_document(&cx, change).await.unwrap();
    assert_eq!((now.title.as_str(), now.attributes.get("lang")), ("Katzen", Some(&value("de"))));
    for (lang, expected) in [("de", 1), ("en", 0)] {
        let comparison = filter::Comparison { attribute: "lang".into(), operator: 1, values: vec![value(lang)] };
        let filter = Some(Filter { filter: Some(filter::Filter::Comparison(comparison)) });
        let request = llama_stack_proto::v1::QueryRequest { filter, ..query(&bank, "cats", SearchMode::Vector) };
        let answer = memory.query(&cx, request).await.unwrap();
        assert_eq!(answer.chunks.len(), expected);
        assert!(answer.chunks.iter().all(|scored| scored.chunk.as_ref().unwrap().title == "Katzen"));
    }
    let nobody = UpdateDocumentRequest { bank_id: bank.id, document_id: "none".into(), ..UpdateDocumentRequest::default() };
    assert_eq!(memory.update_document(&cx, nobody).await.unwrap_err().reason(), Some("document_not_found"));
}

pub async fn what_was_deleted_is_not_found(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    inserted(&memory, &cx, &bank, ["a", "b", "c", "d"].map(|id| text(id, &format!("cat {id}"))).to_vec()).await;
    let delete = |ids: &[&str]| DeleteDocumentsRequest {
        bank_id: bank.id.clone(),
        document_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..DeleteDocumentsRequest::default()
    };
    assert_eq!(memory.delete_documents(&cx, delete(&["a", "none", "b"])).await.unwrap().deleted, 2);
    assert_eq!(memory.delete_documents(&cx, delete(&["a"])).await.unwrap().deleted, 0);
    assert_eq!(memory.delete_documents(&cx, delete(&["c"])).await.unwrap().deleted, 1);
    for mode in [SearchMode::Vector, SearchMode::Keyword, SearchMode::Hybrid] {
        assert_eq!(found(&memory, &cx, query(&bank, "cat a", mode)).await, ["d"]);
    }
    let gone = GetDocumentRequest { bank_id: bank.id, document_id: "a".into(), ..GetDocumentRequest::default() };
    assert_eq!(memory.get_document(&cx, gone).await.unwrap_err().reason(), Some("document_not_found"));
}

/// Not even until the next sweep.
pub async fn what_has_expired_is_not_found(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let until = async |seconds: u64| {
        let mut soon = ids::now();
        soon.seconds += seconds as i64;
        let documents = vec![Document { expires: Some(soon), ..text("soon", "cat one") }, text("stays", "cat two")];
        let refused = insert(&memory, &cx, &bank, documents).await.unwrap().failures;
        tokio::time::sleep(std::time::Duration::from_millis(seconds * 1_000 + 100)).await;
        refused
    };
    let mut refused = until(1).await;
    if !refused.is_empty() {
        // Its time was over before it was looked at.
        refused = until(10).await;
    }
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(found(&memory, &cx, query(&bank, "cat", SearchMode::Keyword)).await, ["stays"]);
    let gone = GetDocumentRequest { bank_id: bank.id.clone(), document_id: "soon".into(), ..GetDocumentRequest::default() };
    assert_eq!(memory.get_document(&cx, gone).await.unwrap_err().code(), Code::NotFound);
}

pub async fn ready_chunks_are_checked_one_by_one(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, CreateBankRequest { embedding_dimension: 3, ..CreateBankRequest::default() }).await.unwrap();
    let request = vec![
        chunk("one", "d", "cats purr", &[1.0, 0.0, 0.0]),
        chunk("short", "d", "x", &[1.0, 0.0]),
        chunk("none", "d", "x", &[]),
        chunk("nan", "d", "x", &[f32::NAN, 0.0, 0.0]),
        chunk("two", "e", "dogs bark", &[0.0, 1.0, 0.0]),
    ];
    let failures = memory.insert_chunks(&cx, chunks(&bank, request)).await.unwrap().failures;
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [1, 2, 3]);
    let told = failures[0].error.clone().unwrap();
    assert!(told.message.contains("\"short\"") && told.message.contains('3'), "{told:?}");
    let by_vector = llama_stack_proto::v1::QueryRequest { vector: vec![0.1, 0.9, 0.0], ..query(&bank, "", SearchMode::Vector) };
    assert_eq!(found(&memory, &cx, by_vector).await, ["e", "d"]);
    // Again, under the same id: in its place.
    memory.insert_chunks(&cx, chunks(&bank, vec![chunk("two", "e", "fish swim", &[0.0, 0.0, 1.0])])).await.unwrap();
    assert!(found(&memory, &cx, query(&bank, "bark", SearchMode::Keyword)).await.is_empty());
    assert_eq!(found(&memory, &cx, query(&bank, "swim", SearchMode::Keyword)).await, ["e"]);
    let listed = memory.list_documents(&cx, ListDocumentsRequest { bank_id: bank.id.clone(), ..Default::default() }).await.unwrap();
    assert_eq!(listed.documents.len(), 2);
    let error = memory.query(&cx, query(&bank, "cats", SearchMode::Vector)).await.unwrap_err();
    assert_eq!(error.reason(), Some("no_embedding_model"), "a bank without a model cannot read words: {error:?}");
    let wrong = llama_stack_proto::v1::QueryRequest { vector: vec![1.0], ..query(&bank, "", SearchMode::Vector) };
    assert_eq!(memory.query(&cx, wrong).await.unwrap_err().reason(), Some("wrong_dimension"));
}

/// What moves a bank elsewhere: what is known of a document besides its chunks, and that it expires all the same.
pub async fn chunks_bring_what_is_known_of_their_documents(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, CreateBankRequest { embedding_dimension: 2, ..CreateBankRequest::default() }).await.unwrap();
    let (mut came, mut expires) = (ids::now(), ids::now());
    came.seconds -= 100;
    expires.seconds += 3;
    let known = Document { created: Some(came), expires: Some(expires), title: "known".into(), ..text("d1", "where it is from") };
    let made = || vec![chunk("c1", "d1", "one", &[1.0, 0.0]), chunk("c2", "d2", "two", &[0.0, 1.0])];
    let request = InsertChunksRequest { documents: vec![known.clone()], ..chunks(&bank, made()) };
    memory.insert_chunks(&cx, request).await.unwrap();
    let get = |id: &str| GetDocumentRequest { bank_id: bank.id.clone(), document_id: id.into(), ..GetDocumentRequest::default() };
    let there = memory.get_document(&cx, get("d1")).await.unwrap();
    assert_eq!(
        (there.created, there.expires, there.title.as_str(), &there.content),
        (known.created, known.expires, "known", &known.content)
    );
    assert_eq!((there.status(), there.chunk_count), (DocumentStatus::Completed, 1));
    let over = async {
        loop {
            match memory.get_document(&cx, get("d1")).await {
                Err(error) => return error.code(),
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    };
    assert_eq!(timeout(NEVER, over).await.unwrap(), Code::NotFound);
    memory.get_document(&cx, get("d2")).await.unwrap();
    let late = InsertChunksRequest { documents: vec![known], ..chunks(&bank, made()) };
    assert_eq!(memory.insert_chunks(&cx, late).await.unwrap_err().field(), Some("documents[0].expires"));
}

/// What is longer than a message is got and put part by part, and has its hash once all of it is there; its bytes are the source's,
/// though its chunks have more.
pub async fn a_content_goes_in_parts(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let (bank, copy) = (made(&memory, &cx).await, made(&memory, &cx).await);
    let whole = "Wale singen. Säle füllen sich. ".repeat(200);
    inserted(&memory, &cx, &bank, vec![text("a", &whole)]).await;
    let get = |bank: &Bank, content_offset: u64, content_bytes: u64| GetDocumentRequest {
        bank_id: bank.id.clone(),
        document_id: "a".into(),
        content_offset,
        content_bytes,
    };
    let original = memory.get_document(&cx, get(&bank, 0, 1_000)).await.unwrap();
    let known = Document { content: None, ..original.clone() };
    let vector = crate::worded::vector("cat");
    let request = InsertChunksRequest { documents: vec![known], ..chunks(&copy, vec![chunk("a#0", "a", &whole.repeat(2), &vector)]) };
    memory.insert_chunks(&cx, request).await.unwrap();
    let put = |offset: u64, text: &str| InsertChunksRequest {
        content_parts: vec![ContentPart { document_id: "a".into(), offset, part: Some(Part::Text(text.into())) }],
        ..chunks(&copy, Vec::new())
    };
    let mut offset = 0;
    loop {
        let there = memory.get_document(&cx, get(&bank, offset, 1_000)).await.unwrap();
        let Some(Content::Text(part)) = there.content else { unreachable!("it is a text") };
        if part.is_empty() {
            break;
        }
        assert!((1_000..=1_003).contains(&part.len()) || offset + part.len() as u64 == whole.len() as u64);
        memory.insert_chunks(&cx, put(offset, &part)).await.unwrap();
        offset += part.len() as u64;
        let copied = memory.get_document(&cx, get(&copy, 0, 1)).await.unwrap();
        assert_eq!((copied.bytes, copied.sha256.is_empty()), (original.bytes, offset < original.bytes), "after {offset} bytes");
    }
    let copied = memory.get_document(&cx, get(&copy, 0, 0)).await.unwrap();
    assert_eq!((copied.content, copied.sha256), (Some(Content::Text(whole.clone())), original.sha256));
    let wrong = [put(whole.len() as u64 + 1, "x"), put(whole.len() as u64, "more than was said"), put(15, "inside a letter")];
    for wrong in wrong {
        assert_eq!(memory.insert_chunks(&cx, wrong).await.unwrap_err().field(), Some("content_parts[0]"));
    }
    let beyond = memory.get_document(&cx, get(&bank, u64::MAX, 1)).await.unwrap_err();
    assert_eq!((beyond.code(), beyond.field()), (Code::InvalidArgument, Some("content_offset")));
    let nobody = ContentPart { document_id: "nobody".into(), offset: 0, part: Some(Part::Text("x".into())) };
    let nobody = InsertChunksRequest { content_parts: vec![nobody], ..chunks(&copy, Vec::new()) };
    assert_eq!(memory.insert_chunks(&cx, nobody).await.unwrap_err().code(), Code::NotFound);
}

/// What moves a bank elsewhere: every chunk once, with the vector that it was given.
pub async fn chunks_are_listed_once_with_their_vectors(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, CreateBankRequest { embedding_dimension: 2, ..CreateBankRequest::default() }).await.unwrap();
    let made: Vec<_> = (0..23).map(|n| chunk(&format!("c{n}"), &format!("d{}", n % 4), "text", &[n as f32, 1.0])).collect();
    let given: HashSet<(String, u32)> = made.iter().map(|chunk| (chunk.id.clone(), chunk.vector[0] as u32)).collect();
    memory.insert_chunks(&cx, chunks(&bank, made)).await.unwrap();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListChunksRequest { bank_id: bank.id.clone(), page_size: 5, page_token, with_vectors: true, ..ListChunksRequest::default() };
        let page = memory.list_chunks(&cx, request).await.unwrap();
        seen.extend(page.chunks.into_iter().map(|chunk| (chunk.id, chunk.vector[0].round() as u32)));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(seen.len(), 23);
    assert_eq!(seen.into_iter().map(|(id, _)| id).collect::<HashSet<_>>(), given.into_iter().map(|(id, _)| id).collect());
}

pub async fn values_are_kept_by_their_key(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, bank_of(BankKind::KeyValue)).await.unwrap();
    inserted(&memory, &cx, &bank, vec![text("colour", "blue"), text("size", "9")]).await;
    inserted(&memory, &cx, &bank, vec![text("colour", "green")]).await;
    let get = GetDocumentRequest { bank_id: bank.id.clone(), document_id: "colour".into(), ..GetDocumentRequest::default() };
    assert_eq!(memory.get_document(&cx, get).await.unwrap().content, Some(Content::Text("green".into())));
    let error = memory.query(&cx, query(&bank, "green", SearchMode::Unspecified)).await.unwrap_err();
    assert_eq!(error.reason(), Some("mode_not_supported"));
}

pub async fn the_background_tells_how_far_it_is(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = memory.create_bank(&cx, vector_bank()).await.unwrap();
    let documents = vec![text("a", "cats purr"), text("b", " \n "), text("c", "dogs bark")];
    let request = InsertDocumentsRequest { bank_id: bank.id.clone(), documents, background: true, ..InsertDocumentsRequest::default() };
    let begun = memory.insert_documents(&cx, request).await.unwrap();
    let ingestion = begun.ingestion.unwrap();
    assert_eq!((ingestion.documents, begun.document_ids.len()), (3, 3));
    let get = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id.clone() };
    let watched = memory.watch_ingestion(&cx, get.clone()).await.unwrap();
    let told: Vec<_> = timeout(NEVER, watched.collect()).await.expect("the watch did not end");
    let last = told.last().unwrap().as_ref().unwrap().clone();
    assert_eq!((last.status(), last.completed, last.failed, last.cancelled), (DocumentStatus::Completed, 2, 1, 0));
    assert_eq!((last.chunks, last.chunks_embedded, last.ended.is_some()), (2, 2, true));
    assert_eq!(memory.get_ingestion(&cx, get.clone()).await.unwrap(), last);
    // What has ended is not cancelled any more.
    let cancel = CancelIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id.clone() };
    assert_eq!(memory.cancel_ingestion(&cx, cancel).await.unwrap(), last);
    let failed = ListDocumentsRequest {
        bank_id: bank.id.clone(),
        status: DocumentStatus::Failed.into(),
        ingestion_id: ingestion.id,
        ..ListDocumentsRequest::default()
    };
    let failed = memory.list_documents(&cx, failed).await.unwrap().documents;
    assert_eq!((failed.len(), failed[0].id.as_str()), (1, "b"));
    assert_eq!(failed[0].error.as_ref().unwrap().reason, "empty_file");
    assert_eq!(found(&memory, &cx, query(&bank, "cats", SearchMode::Keyword)).await, ["a"]);
    let nowhere = GetIngestionRequest { id: "none".into(), ..get };
    assert_eq!(memory.get_ingestion(&cx, nowhere.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(memory.watch_ingestion(&cx, nowhere).await.err().map(|error| error.code()).unwrap_or(Code::NotFound), Code::NotFound);
}

/// Whether or not there are files here: this one there is not.
pub async fn files_that_are_not_there_are_told(memory: Arc<dyn Memory>) {
    let cx = somebody();
    let bank = made(&memory, &cx).await;
    let file = Document { id: "f".into(), content: Some(Content::FileId("file-none".into())), ..Document::default() };
    let failures = insert(&memory, &cx, &bank, vec![file]).await.unwrap().failures;
    let error = failures[0].error.clone().unwrap();
    assert!(matches!(error.code.as_str(), "FAILED_PRECONDITION" | "NOT_FOUND" | "UNIMPLEMENTED"), "{error:?}");
}
