//! What is deleted is gone from the disk: the folder of a running stack is scanned, byte by byte.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures::stream;
use llama_stack_core::{
    Context, Deps, EventStream, Inference, Memory, Registry, Result,
    forget::{Forget, Keepers},
};
use llama_stack_proto::v1::{
    Bank, ChatEvent, ChatRequest, CreateBankRequest, DeleteBankRequest, DeleteDocumentsRequest, Document, FinishReason,
    InsertDocumentsRequest, ListModelsRequest, ListModelsResponse, Model, ModelKind, Role, ToolCallDelta, document::Content,
};
use llama_stack_tests::conformance::memory;
use serde_json::{Value, json};

use crate::memory::{Served, said};

/// Numbers of the vectors here: few enough to lie in one page.
const DIMENSION: u32 = 32;

/// A model that searches before it answers, and keeps in a file what a tenant told it: as an engine keeps what it has read.
struct Keeping(PathBuf);

/// Registers the type `test::keeping`, whose model is `keeping`.
pub(crate) fn register(registry: &mut Registry) {
    registry.inference.add("test::keeping", |_: Value, deps: Deps| async move {
        let model = Arc::new(Keeping(deps.folder.join("kept")));
        fs::create_dir_all(&model.0).unwrap();
        let keeper: Arc<dyn Forget> = model.clone();
        deps.extensions.get::<Keepers>().unwrap().enter(&keeper);
        Ok(model as Arc<dyn Inference>)
    });
}

#[async_trait]
impl Inference for Keeping {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = Model { id: "keeping".into(), kind: ModelKind::Chat.into(), ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        fs::write(self.0.join(cx.tenant()), format!("{:?}", request.messages)).unwrap();
        let has_searched = request.messages.last().is_some_and(|last| last.role() == Role::Tool);
        let events = if has_searched {
            [ChatEvent::text(0, "so it is"), ChatEvent::finish(0, FinishReason::Stop)]
        } else {
            let (name, arguments) = ("file_search".into(), r#"{"query":"secret word"}"#.into());
            let call = ToolCallDelta { index: 0, id: "call_1".into(), name, arguments };
            [ChatEvent::tool_call(0, call), ChatEvent::finish(0, FinishReason::ToolCalls)]
        };
        Ok(Box::pin(stream::iter(events.map(Ok))))
    }
}

#[async_trait]
impl Forget for Keeping {
    async fn forget(&self, tenant: &str) -> Result<u64> {
        Ok(u64::from(fs::remove_file(self.0.join(tenant)).is_ok()))
    }
}

/// Files of the folder, and of those below it, that have these bytes in them.
fn holding(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        // A log may go while it is looked at.
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// That it is nowhere, and that the scan would have seen it.
struct Canary {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Canary {
    fn word(name: &'static str, word: &str) -> Self {
        Self { name, bytes: word.as_bytes().to_vec() }
    }

    fn is_there(&self, home: &Path) {
        assert!(!holding(home, &self.bytes).is_empty(), "the scan does not see {}", self.name);
    }

    fn is_gone(&self, home: &Path) {
        let found = holding(home, &self.bytes);
        assert!(found.is_empty(), "{} was deleted, and is in {found:?}", self.name);
    }
}

fn document(id: &str, word: &str) -> Document {
    let text = format!("{} The secret word of this one is {word}. {}", "Words before. ".repeat(40), "Words after. ".repeat(400));
    Document { id: id.into(), content: Some(Content::Text(text)), ..Document::default() }
}

async fn bank(stack: &Served, cx: &Context, dimension: u32) -> Bank {
    let request = match dimension {
        0 => memory::vector_bank(),
        embedding_dimension => CreateBankRequest { name: "own".into(), embedding_dimension, ..CreateBankRequest::default() },
    };
    stack.memory.create_bank(cx, request).await.unwrap()
}

async fn delete(memory: &dyn Memory, cx: &Context, bank: &Bank, id: &str) {
    let request = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec![id.into()], ..DeleteDocumentsRequest::default() };
    assert_eq!(memory.delete_documents(cx, request).await.unwrap().deleted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_document_is_in_no_file_with_its_text_and_its_vector() {
    let stack = Served::start().await;
    let (cx, home) = (memory::somebody(), stack.home.path().to_owned());
    let (words, own) = (bank(&stack, &cx, 0).await, bank(&stack, &cx, DIMENSION).await);
    let vector: Vec<f32> = (0..DIMENSION).map(|n| 0.137 + n as f32 * 0.0173).collect();
    let canaries = [
        Canary::word("a document's text", "zanzibarquokka1"),
        Canary::word("an earlier version's text", "zanzibarquokka2"),
        Canary::word("the text of one that was read in the background", "zanzibarquokka3"),
        Canary::word("a chunk's text", "zanzibarquokka4"),
        Canary { name: "a vector", bytes: vector.iter().flat_map(|number| number.to_le_bytes()).collect() },
    ];
    memory::inserted(&stack.memory, &cx, &words, vec![document("a", "zanzibarquokka1"), document("b", "zanzibarquokka2")]).await;
    let background = InsertDocumentsRequest {
        bank_id: words.id.clone(),
        documents: vec![document("c", "zanzibarquokka3")],
        background: true,
        ..InsertDocumentsRequest::default()
    };
    stack.memory.insert_documents(&cx, background).await.unwrap();
    let chunk = memory::chunk("d#0", "d", "a chunk that says zanzibarquokka4", &vector);
    assert!(stack.memory.insert_chunks(&cx, memory::chunks(&own, vec![chunk])).await.unwrap().failures.is_empty());
    memory::inserted(&stack.memory, &cx, &words, vec![memory::text("stays", "a meerkat stays")]).await;
    canaries.iter().for_each(|canary| canary.is_there(&home));

    memory::inserted(&stack.memory, &cx, &words, vec![memory::text("b", "another version")]).await;
    for (bank, id) in [(&words, "a"), (&words, "b"), (&words, "c"), (&own, "d")] {
        delete(stack.memory.as_ref(), &cx, bank, id).await;
    }
    canaries.iter().for_each(|canary| canary.is_gone(&home));
    Canary::word("what was not deleted", "meerkat").is_there(&home);
    let home = stack.stop().await;
    canaries.iter().for_each(|canary| canary.is_gone(home.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_bank_and_what_a_person_had_forgotten_are_in_no_file() {
    let stack = Served::start().await;
    let (cx, home) = (memory::somebody(), stack.home.path().to_owned());
    let bank = bank(&stack, &cx, 0).await;
    memory::inserted(&stack.memory, &cx, &bank, vec![document("a", "zanzibarquokka5")]).await;
    let kept = stack.call(&cx, "remember", r#"{"text":"Ann hides the key at zanzibarquokka6."}"#).await;
    assert!(!kept.is_error, "{kept:?}");
    let canaries = [Canary::word("a bank's text", "zanzibarquokka5"), Canary::word("what was remembered", "zanzibarquokka6")];
    canaries.iter().for_each(|canary| canary.is_there(&home));

    stack.memory.delete_bank(&cx, DeleteBankRequest { id: bank.id }).await.unwrap();
    let recalled = stack.call(&cx, "recall", r#"{"query":"where is the key"}"#).await;
    let id = recalled.search_results.first().unwrap_or_else(|| panic!("{}", said(&recalled))).document_id.clone();
    assert!(!stack.call(&cx, "forget", &json!({ "id": id }).to_string()).await.is_error);
    canaries.iter().for_each(|canary| canary.is_gone(&home));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_and_a_deleted_response_are_in_no_file() {
    let stack = Served::start().await;
    let home = stack.home.path().to_owned();
    let (http, url) = (reqwest::Client::new(), stack.url.clone());
    let form = "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--line\r\ncontent-disposition: form-data; \
                name=\"file\"; filename=\"zanzibarquokka7.txt\"\r\ncontent-type: text/plain\r\n\r\nThe word is \
                zanzibarquokka8.\r\n--line--\r\n";
    let upload = http.post(format!("{url}/v1/files")).header("content-type", "multipart/form-data; boundary=line").body(form);
    let file = read(upload).await;
    let body = json!({ "model": "worded-chat", "input": "Say zanzibarquokka9 again." });
    let response = read(http.post(format!("{url}/v1/responses")).header("content-type", "application/json").body(body.to_string())).await;
    let canaries = [
        Canary::word("a file's name", "zanzibarquokka7"),
        Canary::word("a file's content", "zanzibarquokka8"),
        Canary::word("a response's journal", "zanzibarquokka9"),
    ];
    canaries.iter().for_each(|canary| canary.is_there(&home));
    for path in [format!("files/{}", file["id"].as_str().unwrap()), format!("responses/{}", response["id"].as_str().unwrap())] {
        read(http.delete(format!("{url}/v1/{path}"))).await;
    }
    canaries.iter().for_each(|canary| canary.is_gone(&home));
    stack.stop().await;
}

/// What a model was told of a document goes with it, and nothing goes where it was told nothing of what is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_was_told_of_a_deleted_document_or_bank_is_in_no_file() {
    let manifest = "version: 1\nname: e2e\nproviders:\n  inference:\n    - { id: worded, type: test::worded }\n    - { id: keeping, type: test::keeping }\n  memory:\n    - { id: banks, type: inline::sqlite }\n";
    let stack = Served::with(manifest).await;
    let (ann, stranger, home) = (memory::somebody(), memory::somebody(), stack.home.path().to_owned());
    let http = reqwest::Client::new();
    let ask = async |cx: &Context, bank: &Bank| {
        let tool = json!({ "type": "file_search", "vector_store_ids": [bank.id.replacen("bank_", "vs_", 1)], "max_num_results": 1 });
        let body = json!({ "model": "keeping", "input": "which secret word?", "tools": [tool] });
        let request = http.post(format!("{}/v1/responses", stack.url)).header("content-type", "application/json").body(body.to_string());
        let who = [("x-llama-stack-tenant", cx.tenant()), ("x-llama-stack-principal", cx.principal().id.as_str())];
        let response = read(who.into_iter().fold(request, |request, (name, value)| request.header(name, value))).await;
        assert_eq!(response["output"][0]["type"], "file_search_call", "{response}");
    };
    let (deleted, gone_with_its_bank, others) = ("zanzibarquokka10", "zanzibarquokka11", "zanzibarquokka12");
    for (cx, word) in [(&ann, deleted), (&ann, gone_with_its_bank), (&stranger, others)] {
        let bank = bank(&stack, cx, 0).await;
        let quoted = memory::text("quoted", &format!("the secret word is {word}"));
        memory::inserted(&stack.memory, cx, &bank, vec![quoted, memory::text("unread", "whales sing"), memory::text("stays", "a meerkat")])
            .await;
        ask(cx, &bank).await;
        let (kept, canary) = (home.join("e2e/kept").join(cx.tenant()), Canary::word("what a model was told", word));
        let in_memory_of_model = || fs::read_to_string(&kept).is_ok_and(|text| text.contains(word));
        assert!(in_memory_of_model());
        delete(stack.memory.as_ref(), cx, &bank, "unread").await;
        assert!(in_memory_of_model(), "nothing of the other document was told to anybody");
        if word == deleted {
            delete(stack.memory.as_ref(), cx, &bank, "quoted").await;
            canary.is_gone(&home);
        } else if word == gone_with_its_bank {
            stack.memory.delete_bank(cx, DeleteBankRequest { id: bank.id }).await.unwrap();
            canary.is_gone(&home);
        } else {
            canary.is_there(&home);
        }
    }
    stack.stop().await;
}

/// Whose processes share a database forget together: each keeps what it read itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_was_told_of_a_deleted_document_goes_too() {
    let shared = tempfile::tempdir().unwrap();
    let manifest = format!(
        "version: 1\nname: e2e\nstore: {{ url: \"sqlite://{}\" }}\nproviders:\n  inference:\n    - {{ id: worded, type: test::worded }}\n    - {{ id: keeping, type: test::keeping }}\n  memory:\n    - {{ id: banks, type: inline::sqlite }}\n",
        shared.path().join("state.db").display()
    );
    let (one, other) = (Served::with(&manifest).await, Served::with(&manifest).await);
    let (cx, stranger, http) = (memory::somebody(), memory::somebody(), reqwest::Client::new());
    let ask = async |stack: &Served, cx: &Context, bank: &Bank| {
        let tool = json!({ "type": "file_search", "vector_store_ids": [bank.id.replacen("bank_", "vs_", 1)] });
        let body = json!({ "model": "keeping", "input": "which secret word?", "tools": [tool] });
        let request = http.post(format!("{}/v1/responses", stack.url)).header("content-type", "application/json").body(body.to_string());
        let who = [("x-llama-stack-tenant", cx.tenant()), ("x-llama-stack-principal", cx.principal().id.as_str())];
        let request = who.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        assert!(request.send().await.unwrap().status().is_success());
    };
    let kept = |stack: &Served, cx: &Context| stack.home.path().join("e2e/kept").join(cx.tenant());
    let bank = bank(&one, &cx, 0).await;
    memory::inserted(&one.memory, &cx, &bank, vec![memory::text("quoted", "the secret word is zanzibarquokka13")]).await;
    ask(&one, &cx, &bank).await;
    for cx in [&cx, &stranger] {
        // Of the tenant, whatever it is: which of it quotes the document a prefix does not say.
        fs::write(kept(&other, cx), "zanzibarquokka13").unwrap();
    }
    assert!(kept(&one, &cx).exists());
    delete(one.memory.as_ref(), &cx, &bank, "quoted").await;
    assert!(!kept(&one, &cx).exists());
    let gone = async {
        while kept(&other, &cx).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(memory::NEVER, gone).await.unwrap();
    assert!(kept(&other, &stranger).exists(), "nothing of theirs was deleted");
    // One that was not running then forgets when it starts.
    let home = other.stop().await;
    fs::write(home.path().join("e2e/kept").join(cx.tenant()), "zanzibarquokka13").unwrap();
    memory::inserted(&one.memory, &cx, &bank, vec![memory::text("again", "the secret word is zanzibarquokka13")]).await;
    ask(&one, &cx, &bank).await;
    delete(one.memory.as_ref(), &cx, &bank, "again").await;
    let other = Served::start_in(home, &manifest).await;
    let gone = async {
        while kept(&other, &cx).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(memory::NEVER, gone).await.unwrap();
    one.stop().await;
    other.stop().await;
}

async fn read(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert!(status.is_success(), "{status}: {body}");
    body
}
