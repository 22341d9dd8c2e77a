//! Memory through a whole stack: every promise over gRPC, and what a model may look up and keep.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use llama_stack_core::{
    Code, Context, Deps, Error, Manifest, Memory, Result, Tools,
    grpc::{Remote, channel},
    ids,
};
use llama_stack_proto::v1::{
    Bank, CreateBankRequest, DeleteDocumentsRequest, DeleteDocumentsResponse, Document, File, GetBankRequest, GetDocumentRequest,
    InsertDocumentsRequest, InsertDocumentsResponse, InvokeToolRequest, InvokeToolResponse, ListBanksRequest, ListBanksResponse,
    ListDocumentsRequest, ListToolsRequest, QueryRequest, QueryResponse, SearchMode, document::Content, memory_client::MemoryClient,
    tools_client::ToolsClient,
};
use llama_stack_server::{Options, Stack};
use llama_stack_store::{Durability, Store};
use llama_stack_tests::{
    conformance::{memory, tools},
    served, worded,
};
use prost_types::Timestamp;
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const MANIFEST: &str = "version: 1\nname: e2e\nproviders:\n  inference:\n    - { id: worded, type: test::worded }\n  memory:\n    - { id: banks, type: inline::sqlite }\n  tools:\n    - { id: memory, type: inline::memory }\n";

/// A stack with banks, until the token is cancelled; its memory and its tools over the wire.
pub(crate) struct Served {
    pub(crate) memory: Arc<dyn Memory>,
    tools: Arc<dyn Tools>,
    pub(crate) url: String,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<llama_stack_core::Result<()>>,
    pub(crate) home: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(MANIFEST).await
    }

    pub(crate) async fn with(manifest: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), manifest).await
    }

    /// In a home that is there already: what an earlier stack kept is there as well.
    pub(crate) async fn start_in(home: tempfile::TempDir, manifest: &str) -> Self {
        let mut registry = llama_stack_server::registry();
        worded::register(&mut registry);
        crate::erased::register(&mut registry);
        let options = Options { home: home.path().to_owned(), on_progress: Arc::new(|_| {}) };
        let stack = Stack::build(Manifest::parse(manifest, "e2e.yaml").unwrap(), &registry, options).await.unwrap();
        let listener = llama_stack_server::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(stack.serve(listener, shutdown.clone()));
        let channel = channel(&url, std::time::Duration::from_secs(5)).unwrap();
        let memory = Arc::new(Remote::<MemoryClient<Channel>>::new(channel.clone()));
        let tools = Arc::new(Remote::<ToolsClient<Channel>>::new(channel));
        Self { memory, tools, url, shutdown, server, home }
    }

    /// Ends it, and gives back the folder.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
        self.home
    }

    pub(crate) async fn call(&self, cx: &Context, tool: &str, arguments: &str) -> InvokeToolResponse {
        let request = InvokeToolRequest { name: tool.into(), arguments: arguments.into(), call_id: "call_1".into() };
        self.tools.invoke_tool(cx, request).await.unwrap()
    }
}

pub(crate) fn said(response: &InvokeToolResponse) -> String {
    response.parts.iter().filter_map(|part| part.as_text()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise() {
    let stack = Served::start().await;
    memory::all(stack.memory.clone()).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tools_are_listed_and_check_their_arguments() {
    let stack = Served::start().await;
    let listed = stack.tools.list_tools(&Context::test("acme"), ListToolsRequest::default()).await.unwrap().tools;
    let names: Vec<&str> = listed.iter().map(|tool| tool.definition.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["knowledge_search", "remember", "recall", "forget"]);
    let facts: Vec<[bool; 3]> = listed.iter().map(|tool| [tool.reads_untrusted, tool.reads_private, tool.changes_state]).collect();
    assert_eq!(facts, [[true, true, false], [false, false, true], [true, true, false], [false, false, true]]);
    tools::lists_each_tool_once_with_its_schema(stack.tools.clone(), &[]).await;
    tools::pages_cover_the_list_once(stack.tools.clone()).await;
    tools::groups_hold_the_listed_tools(stack.tools.clone()).await;
    let cx = Context::test("acme");
    for (tool, arguments) in [("knowledge_search", "{"), ("knowledge_search", "{}"), ("remember", r#"{"text":" "}"#), ("forget", "[]")] {
        let answer = stack.call(&cx, tool, arguments).await;
        assert!(answer.is_error && !said(&answer).is_empty(), "{tool} takes {arguments}: {answer:?}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_says_where_each_passage_comes_from() {
    let stack = Served::start().await;
    let cx = memory::somebody();
    let bank = memory::made(&stack.memory, &cx).await;
    memory::inserted(&stack.memory, &cx, &bank, vec![memory::text("pets", "the cat purrs"), memory::text("sea", "whales sing")]).await;
    let arguments = format!(r#"{{"query":"who purrs","banks":["{}"]}}"#, bank.id);
    let answer = stack.call(&cx, "knowledge_search", &arguments).await;
    assert_eq!(answer.parts[0].provenance, format!("retrieved:{}/pets", bank.id));
    let first = &answer.search_results[0];
    assert_eq!((first.document_id.as_str(), first.bank_id.as_str(), first.text.as_str()), ("pets", bank.id.as_str(), "the cat purrs"));
    // Another person's bank does not exist for a model either.
    let stranger = memory::caller(cx.tenant(), "bob", &[]);
    let answer = stack.call(&stranger, "knowledge_search", &arguments).await;
    assert!(answer.is_error && answer.search_results.is_empty() && said(&answer).contains("no bank"), "{answer:?}");
    let nowhere = stack.call(&cx, "knowledge_search", r#"{"query":"cats"}"#).await;
    assert!(nowhere.is_error && said(&nowhere).contains("name the banks"), "{nowhere:?}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_is_the_persons_own() {
    let stack = Served::start().await;
    let ann = memory::somebody();
    let bob = memory::caller(ann.tenant(), "bob", &[]);
    assert!(said(&stack.call(&ann, "recall", r#"{"query":"tea"}"#).await).contains("nothing"));
    let kept = stack.call(&ann, "remember", r#"{"text":"Ann drinks green tea in the morning."}"#).await;
    assert!(!kept.is_error, "{kept:?}");
    // Again: the same memory.
    assert_eq!(said(&stack.call(&ann, "remember", r#"{"text":"Ann drinks green tea in the morning."}"#).await), said(&kept));
    stack.call(&bob, "remember", r#"{"text":"Bob drinks black tea."}"#).await;

    let recalled = stack.call(&ann, "recall", r#"{"query":"which tea"}"#).await;
    assert_eq!(recalled.search_results.len(), 1, "{recalled:?}");
    let (found, text) = (&recalled.search_results[0], said(&recalled));
    assert!(text.contains("green tea") && !text.contains("black"), "{text}");
    assert!(found.attributes.contains("\"by\":\"ann\""), "{found:?}");
    assert_eq!(recalled.parts[0].provenance, format!("retrieved:{}/{}", found.bank_id, found.document_id));

    let id = format!(r#"{{"id":"{}"}}"#, found.document_id);
    assert!(stack.call(&bob, "forget", &id).await.is_error, "another's memory was deleted");
    assert!(!stack.call(&ann, "forget", &id).await.is_error);
    assert!(stack.call(&ann, "forget", &id).await.is_error);
    assert!(!said(&stack.call(&ann, "recall", r#"{"query":"which tea"}"#).await).contains("green"));
    let request = InvokeToolRequest { name: "no_such_tool".into(), ..InvokeToolRequest::default() };
    match stack.tools.invoke_tool(&ann, request).await {
        Ok(answer) => assert!(answer.is_error),
        Err(error) => assert_eq!(error.code(), Code::NotFound),
    }
    stack.stop().await;
}

/// The stack's tools as another process has them: what one knows of a person's bank, none of the others does.
async fn tools_of(memory: Arc<dyn Memory>) -> Arc<dyn Tools> {
    let deps = Deps { memory: Some(memory), ..Deps::new("nowhere") };
    llama_stack_server::registry().tools.build("inline::memory", json!({}), deps).await.unwrap()
}

async fn invoked(tools: &Arc<dyn Tools>, cx: &Context, tool: &str, arguments: Json) -> InvokeToolResponse {
    let request = InvokeToolRequest { name: tool.into(), arguments: arguments.to_string(), call_id: "call_1".into() };
    tools.invoke_tool(cx, request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_processes_all_remember_in_one_bank() {
    let stack = Served::start().await;
    let ann = memory::somebody();
    let processes = futures::future::join_all((0..6).map(|_| tools_of(stack.memory.clone()))).await;
    let kept = (0_u32..).zip(&processes).map(|(n, tools)| {
        let text = format!("Ann likes tea number {n}.");
        invoked(tools, &ann, "remember", json!({ "text": text }))
    });
    for answer in futures::future::join_all(kept).await {
        assert!(!answer.is_error, "{answer:?}");
    }
    let banks = stack.memory.list_banks(&ann, ListBanksRequest::default()).await.unwrap().banks;
    assert_eq!(banks.iter().map(|bank| bank.document_count).collect::<Vec<_>>(), [6], "{banks:?}");
    let recalled = invoked(&tools_of(stack.memory.clone()).await, &ann, "recall", json!({ "query": "which tea" })).await;
    assert_eq!(recalled.search_results.len(), 5, "{recalled:?}");
    stack.stop().await;
}

/// Another's memory, which writes down what it is asked to count.
struct Noted {
    memory: Arc<dyn Memory>,
    counted: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Memory for Noted {
    async fn create_bank(&self, cx: &Context, request: CreateBankRequest) -> Result<Bank> {
        self.memory.create_bank(cx, request).await
    }

    async fn get_bank(&self, cx: &Context, request: GetBankRequest) -> Result<Bank> {
        if !request.without_counts {
            self.counted.lock().unwrap().push(request.id.clone());
        }
        self.memory.get_bank(cx, request).await
    }

    async fn list_banks(&self, cx: &Context, request: ListBanksRequest) -> Result<ListBanksResponse> {
        if !request.without_counts {
            self.counted.lock().unwrap().push("all".into());
        }
        self.memory.list_banks(cx, request).await
    }

    async fn insert_documents(&self, cx: &Context, request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        self.memory.insert_documents(cx, request).await
    }

    async fn query(&self, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        self.memory.query(cx, request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_a_tool_counts_nothing() {
    let stack = Served::start().await;
    let cx = memory::somebody();
    let bank = memory::made(&stack.memory, &cx).await;
    memory::inserted(&stack.memory, &cx, &bank, vec![memory::text("pets", "the cat purrs")]).await;
    let noted = Arc::new(Noted { memory: stack.memory.clone(), counted: Mutex::default() });
    let tools = tools_of(noted.clone()).await;
    for (tool, arguments) in [
        ("knowledge_search", json!({ "query": "who purrs", "banks": [bank.id] })),
        ("remember", json!({ "text": "Ann has a cat." })),
        ("recall", json!({ "query": "cat" })),
        ("recall", json!({ "query": "cat" })),
    ] {
        let answer = invoked(&tools, &cx, tool, arguments).await;
        assert!(!answer.is_error && (tool == "remember" || answer.search_results.len() == 1), "{tool}: {answer:?}");
    }
    assert!(noted.counted.lock().unwrap().is_empty(), "{:?}", noted.counted);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_over_http_is_read_on_page_by_page() {
    let stack = Served::start().await;
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Json| -> (u16, Json) {
        let request = http.post(format!("{}{path}", stack.url)).header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    };
    let store = post("/v1/vector_stores", json!({ "name": "cats" })).await.1["id"].clone();
    let texts = ["a cat purrs", "a cat sleeps", "a cat eats", "a cat plays", "a cat hides"];
    let chunks: Vec<Json> = texts.iter().map(|text| json!({ "content": text, "metadata": { "document_id": text } })).collect();
    assert_eq!(post("/v1/vector-io/insert", json!({ "vector_db_id": store, "chunks": chunks })).await.0, 200);
    let search = format!("/v1/vector_stores/{}/search", store.as_str().unwrap());
    let (mut body, mut seen, mut sizes) = (json!({ "query": "a cat", "max_num_results": 2 }), Vec::new(), Vec::new());
    loop {
        let (status, page) = post(&search, body.clone()).await;
        assert_eq!(status, 200, "{page}");
        let data = page["data"].as_array().unwrap();
        seen.extend(data.iter().map(|one| one["file_id"].as_str().unwrap().to_owned()));
        sizes.push(data.len());
        assert_eq!(page["has_more"], page["next_page"].is_string());
        if page["next_page"].is_null() {
            break;
        }
        body["page"] = page["next_page"].clone();
    }
    seen.sort();
    let mut all = texts.to_vec();
    all.sort_unstable();
    assert_eq!((seen, sizes), (all.into_iter().map(str::to_owned).collect(), vec![2, 2, 1]));
    for wrong in [json!({ "query": "a dog", "page": body["page"] }), json!({ "query": ["a cat", "a dog"], "page": body["page"] })] {
        let (status, told) = post(&search, wrong).await;
        assert_eq!((status, &told["error"]["param"]), (400, &json!("page")), "{told}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_were_inserted_for_a_while_go_by_themselves() {
    let stack = Served::start().await;
    let http = reqwest::Client::new();
    let post = async |path: &str, body: serde_json::Value| -> serde_json::Value {
        let request = http.post(format!("{}{path}", stack.url)).header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    let store = post("/v1/vector_stores", serde_json::json!({ "name": "passing" })).await["id"].clone();
    let chunks = |text: &str| serde_json::json!([{ "content": text, "metadata": { "document_id": text } }]);
    let insert = "/v1/vector-io/insert";
    post(insert, serde_json::json!({ "vector_db_id": store, "chunks": chunks("cats stay") })).await;
    post(insert, serde_json::json!({ "vector_db_id": store, "chunks": chunks("cats go"), "ttl_seconds": 3 })).await;
    let found = async || post("/v1/vector-io/query", serde_json::json!({ "vector_db_id": store, "query": "cats" })).await;
    assert_eq!(found().await["chunks"].as_array().unwrap().len(), 2);
    let gone = async {
        loop {
            let left = found().await["chunks"].clone();
            if left.as_array().unwrap().len() == 1 {
                return left;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let left = tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.unwrap();
    assert_eq!(left[0]["content"], "cats stay");
    stack.stop().await;
}

/// Waits until the bank has these documents and no other.
async fn left(stack: &Served, cx: &Context, bank: &Bank, expected: &[&str]) {
    let request = ListDocumentsRequest { bank_id: bank.id.clone(), ..ListDocumentsRequest::default() };
    let wait = async {
        loop {
            let listed = stack.memory.list_documents(cx, request.clone()).await.unwrap().documents;
            if listed.iter().map(|document| document.id.as_str()).eq(expected.iter().copied()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(memory::NEVER, wait).await.unwrap();
}

/// Banks of another process: documents by their ids, whatever they are made of.
#[derive(Default)]
struct Far {
    documents: Mutex<BTreeMap<String, Document>>,
    is_down: AtomicBool,
}

impl Far {
    fn there(&self) -> Vec<String> {
        self.documents.lock().unwrap().keys().cloned().collect()
    }
}

#[async_trait::async_trait]
impl Memory for Far {
    async fn create_bank(&self, cx: &Context, _: CreateBankRequest) -> Result<Bank> {
        self.get_bank(cx, GetBankRequest::new("bank_far")).await
    }

    async fn get_bank(&self, _: &Context, request: GetBankRequest) -> Result<Bank> {
        Ok(Bank { id: request.id, ..Bank::default() })
    }

    async fn insert_documents(&self, _: &Context, request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        let document_ids = request.documents.iter().map(|document| document.id.clone()).collect();
        self.documents.lock().unwrap().extend(request.documents.into_iter().map(|document| (document.id.clone(), document)));
        Ok(InsertDocumentsResponse { document_ids, ..InsertDocumentsResponse::default() })
    }

    async fn delete_documents(&self, _: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("it is down, as it was asked to be"));
        }
        let mut documents = self.documents.lock().unwrap();
        let deleted = request.document_ids.iter().filter_map(|id| documents.remove(id)).count() as u32;
        Ok(DeleteDocumentsResponse { deleted })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_deleted_leaves_the_banks_of_another_process_too() {
    let far = Arc::new(Far::default());
    let socket = served::memory(far.clone()).await;
    let manifest = format!(
        "version: 1\nname: e2e\nproviders:\n  memory:\n    - {{ id: far, type: \"remote::grpc\", config: {{ url: \"{}\" }} }}\n",
        socket.url
    );
    let stack = Served::with(&manifest).await;
    let (cx, http) = (Context::default(), reqwest::Client::new());
    let form = "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--line\r\ncontent-disposition: form-data; \
                name=\"file\"; filename=\"cats.txt\"\r\ncontent-type: text/plain\r\n\r\nthe cat purrs\r\n--line--\r\n";
    let request = http.post(format!("{}/v1/files", stack.url)).header("content-type", "multipart/form-data; boundary=line").body(form);
    let file: Json = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let file = file["id"].as_str().unwrap();
    let bank = memory::made(&stack.memory, &cx).await;
    let of = |id: &str| Document { id: id.into(), content: Some(Content::FileId(file.into())), ..Document::default() };
    memory::inserted(&stack.memory, &cx, &bank, vec![of("read"), of(""), of("replaced"), memory::text("words", "the dog barks")]).await;
    memory::inserted(&stack.memory, &cx, &bank, vec![memory::text("replaced", "the whale sings")]).await;
    assert_eq!(far.there().len(), 4);
    let url = format!("{}/v1/files/{file}", stack.url);
    // As long as it is not forgotten everywhere it is there, and who asked can ask again.
    far.is_down.store(true, Ordering::SeqCst);
    assert_eq!(http.delete(&url).send().await.unwrap().status(), 503);
    assert_eq!(http.get(&url).send().await.unwrap().status(), 200);
    far.is_down.store(false, Ordering::SeqCst);
    assert_eq!(http.delete(&url).send().await.unwrap().status(), 200);
    assert_eq!(far.there(), ["replaced", "words"]);
    assert_eq!(http.get(&url).send().await.unwrap().status(), 404);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_expires_or_gets_too_old_leaves_every_bank() {
    let stack = Served::start().await;
    let cx = Context::default();
    let form = "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--line\r\ncontent-disposition: form-data; \
                name=\"file\"; filename=\"cats.txt\"\r\ncontent-type: text/plain\r\n\r\nthe cat purrs\r\n--line--\r\n";
    let http = reqwest::Client::new();
    let request = http.post(format!("{}/v1/files", stack.url)).header("content-type", "multipart/form-data; boundary=line").body(form);
    let stays: serde_json::Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let stays = stays["id"].as_str().unwrap();
    // Beside it one of the day before yesterday, and one whose time will be over while no stack runs.
    let url = format!("sqlite://{}", stack.home.path().join("e2e/state.db").display());
    let store = Store::open(&url, Durability::Process).await.unwrap();
    let (file, blob) = store.get_file(cx.tenant(), stays, "").await.unwrap();
    let now = ids::now();
    let at = |seconds: i64| Some(Timestamp { seconds: now.seconds + seconds, nanos: 0 });
    let old = File { id: format!("file-{:012x}{}", (now.seconds - 2 * 86_400) * 1_000, "0".repeat(20)), ..file.clone() };
    let over = File { id: ids::new("file").replacen('_', "-", 1), expires: at(3_600), ..file };
    store.insert_file(cx.tenant(), &old, &blob).await.unwrap();
    store.insert_file(cx.tenant(), &over, &blob).await.unwrap();
    let (one, other) = (memory::made(&stack.memory, &cx).await, memory::made(&stack.memory, &cx).await);
    let of = |id: &str| Document { id: id.into(), content: Some(Content::FileId(id.into())), ..Document::default() };
    for bank in [&one, &other] {
        memory::inserted(&stack.memory, &cx, bank, vec![of(stays), of(&old.id), of(&over.id)]).await;
        let read = GetDocumentRequest { bank_id: bank.id.clone(), document_id: over.id.clone(), ..GetDocumentRequest::default() };
        assert_eq!(stack.memory.get_document(&cx, read).await.unwrap().expires, over.expires, "it is not there longer than its file");
    }
    let home = stack.stop().await;
    store.delete_file(cx.tenant(), &over.id).await.unwrap();
    store.insert_file(cx.tenant(), &File { expires: at(-1), ..over }, &blob).await.unwrap();
    store.close().await;

    let stack = Served::start_in(home, &format!("{MANIFEST}retention: {{ files_days: 1 }}\n")).await;
    for bank in [&one, &other] {
        left(&stack, &cx, bank, &[stays]).await;
        assert_eq!(memory::found(&stack.memory, &cx, memory::query(bank, "who purrs", SearchMode::Hybrid)).await, [stays]);
    }
    stack.stop().await;
}
