//! Batches over a real store and real files; who answers is the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use llama_stack_batches::{Answer, Ask, Batcher};
use llama_stack_core::{Authenticated, Batches, Code, Context, Deps, Files, Principal, Priority, context::DELEGATE, ids, manifest};
use llama_stack_files::StoredFiles;
use llama_stack_proto::v1::{
    ApiKey, Batch, BatchStatus, Caller, CancelBatchRequest, CreateBatchRequest, FileHeader, GetBatchRequest, GetFileRequest,
    ListBatchesRequest, UploadFileRequest, upload_file_request::Message,
};
use llama_stack_store::{Durability, Store};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const CHAT: &str = "/v1/chat/completions";

/// Answers with what it was asked: `fail` with 400, `full` with 429 once, `spent` with 429 for ever, `hang` never.
struct Echo {
    asked: Mutex<Vec<(Context, Value)>>,
    answers: Semaphore,
}

#[async_trait::async_trait]
impl Ask for Echo {
    async fn ask(&self, cx: &Context, endpoint: &str, body: Bytes) -> Answer {
        assert_eq!(endpoint, CHAT);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let said = body["say"].as_str().unwrap().to_owned();
        let before = {
            let mut asked = self.asked.lock().unwrap();
            asked.push((cx.clone(), body.clone()));
            asked.iter().filter(|(_, asked)| asked["say"] == said.as_str()).count()
        };
        let answer = |status: u16| {
            let usage = json!({ "prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": { "cached_tokens": 4 } });
            let body = if status == 200 {
                json!({ "said": said, "model": body["model"].as_str().unwrap_or("echo"), "usage": usage })
            } else {
                json!({ "said": said })
            };
            Answer { status, request_id: cx.request_id().unwrap().into(), body, retry_after: None }
        };
        match said.as_str() {
            "hang" => std::future::pending().await,
            "fail" => answer(400),
            "spent" => Answer { retry_after: Some(Duration::from_secs(3_600)), ..answer(429) },
            "full" if before == 1 => Answer { retry_after: Some(Duration::ZERO), ..answer(429) },
            _ => {
                self.answers.acquire().await.unwrap().forget();
                answer(200)
            }
        }
    }
}

struct Site {
    deps: Deps,
    store: Store,
    files: Arc<dyn Files>,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deps = Deps::new(folder.path());
        let store = Store::open(&format!("sqlite://{}/state.db", folder.path().display()), Durability::Process).await.unwrap();
        let files: Arc<dyn Files> = StoredFiles::open(&deps, store.clone(), manifest::Files::default()).await.unwrap();
        Self { deps, store, files, _folder: folder }
    }

    fn batcher(&self) -> Arc<Batcher> {
        let (tasks, shutdown) = (self.deps.tasks.clone(), self.deps.shutdown.child_token());
        Batcher::new(self.store.clone(), self.files.clone(), manifest::Batches::default(), tasks, shutdown)
    }

    fn running(&self, answers: usize) -> (Arc<Batcher>, Arc<Echo>) {
        let echo = Arc::new(Echo { asked: Mutex::default(), answers: Semaphore::new(answers) });
        let batcher = self.batcher();
        batcher.start(echo.clone());
        (batcher, echo)
    }

    async fn upload(&self, cx: &Context, purpose: &str, text: String) -> String {
        let header = FileHeader { filename: "in.jsonl".into(), purpose: purpose.into(), ..FileHeader::default() };
        let messages = [Message::Header(header), Message::Data(text.into_bytes())];
        let messages = messages.map(|message| Ok(UploadFileRequest { message: Some(message) }));
        self.files.upload_file(cx, Box::pin(stream::iter(messages))).await.unwrap().id
    }

    async fn content(&self, cx: &Context, id: &str) -> Vec<Value> {
        let mut chunks = self.files.download_file(cx, GetFileRequest { id: id.into() }).await.unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.unwrap().data);
        }
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn ann() -> Context {
    Context::new(Principal { id: "ann".into(), tenant: "acme".into(), roles: vec!["dev".into()] })
}

fn lines(said: &[&str]) -> String {
    let line = |(n, say): (usize, &&str)| {
        json!({ "custom_id": format!("c{n}"), "method": "POST", "url": CHAT, "body": { "say": say } }).to_string() + "\n"
    };
    said.iter().enumerate().map(line).collect()
}

fn asking(input_file_id: String) -> CreateBatchRequest {
    CreateBatchRequest { input_file_id, endpoint: CHAT.into(), ..CreateBatchRequest::default() }
}

async fn until(batcher: &Batcher, cx: &Context, id: &str, is: impl Fn(&Batch) -> bool) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..1_200 {
        batch = batcher.get_batch(cx, GetBatchRequest { id: id.into() }).await.unwrap();
        if is(&batch) {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the batch got no further: {batch:?}");
}

async fn ended(batcher: &Batcher, cx: &Context, id: &str) -> Batch {
    until(batcher, cx, id, |batch| batch.ended.is_some()).await
}

#[tokio::test]
async fn answers_and_refusals_are_two_files_in_the_order_of_the_input() {
    let site = Site::new().await;
    let (batcher, echo) = site.running(1_000);
    let (cx, said) = (ann(), ["a", "fail", "full", "b"]);
    let input = site.upload(&cx, "batch", lines(&said)).await;
    let batch = batcher.create_batch(&cx, asking(input)).await.unwrap();
    assert_eq!((batch.status(), batch.completion_window.as_str()), (BatchStatus::Validating, "24h"));
    let batch = ended(&batcher, &cx, &batch.id).await;
    assert_eq!((batch.status(), batch.total, batch.completed, batch.failed), (BatchStatus::Completed, 4, 3, 1), "{batch:?}");
    // Of three answers: a refusal used nothing, and neither did the one that found no room at first.
    let usage = batch.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens), (30, 12, 6, 0));
    assert_eq!(batch.model, "echo");
    let told = |answers: Vec<Value>| -> Vec<(String, Value, Value)> {
        let one = |answer: &Value| {
            assert!(answer["id"].as_str().unwrap().starts_with("batch_req_") && answer["error"].is_null(), "{answer}");
            let response = &answer["response"];
            assert!(response["request_id"].as_str().unwrap().starts_with("req_"));
            (answer["custom_id"].as_str().unwrap().to_owned(), response["status_code"].clone(), response["body"]["said"].clone())
        };
        answers.iter().map(one).collect()
    };
    let line = |id: &str, status: u16, said: &str| (id.to_owned(), json!(status), json!(said));
    let output = told(site.content(&cx, &batch.output_file_id).await);
    assert_eq!(output, [line("c0", 200, "a"), line("c2", 200, "full"), line("c3", 200, "b")]);
    assert_eq!(told(site.content(&cx, &batch.error_file_id).await), [line("c1", 400, "fail")]);
    // Asked as its owner, at the priority of batches.
    for (cx, _) in echo.asked.lock().unwrap().iter() {
        assert_eq!((cx.principal(), cx.priority()), (ann().principal(), Priority::Batch));
    }
}

#[tokio::test]
async fn a_batch_of_several_models_names_none() {
    let site = Site::new().await;
    let (batcher, _) = site.running(1_000);
    let cx = ann();
    let line = |model: &str| {
        let body = json!({ "say": model, "model": model });
        json!({ "custom_id": model, "method": "POST", "url": CHAT, "body": body }).to_string() + "\n"
    };
    let input = site.upload(&cx, "batch", line("one") + &line("other")).await;
    let id = batcher.create_batch(&cx, asking(input)).await.unwrap().id;
    let batch = ended(&batcher, &cx, &id).await;
    assert_eq!((batch.completed, batch.model.as_str(), batch.usage.unwrap().total_tokens()), (2, "", 24));
}

#[tokio::test]
async fn an_input_with_mistakes_fails_and_none_of_it_is_asked() {
    let site = Site::new().await;
    let (batcher, echo) = site.running(1_000);
    let cx = ann();
    let input = site.upload(&cx, "batch", format!("{}not json\n", lines(&["a", "b"]))).await;
    let batch = batcher.create_batch(&cx, asking(input)).await.unwrap();
    let batch = ended(&batcher, &cx, &batch.id).await;
    assert_eq!((batch.status(), batch.errors.len(), batch.errors[0].line), (BatchStatus::Failed, 1, 3), "{batch:?}");
    assert_eq!((batch.errors[0].code.as_str(), batch.output_file_id.as_str()), ("invalid_json_line", ""));
    assert!(echo.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_cancel_keeps_what_was_answered_and_begins_nothing_more() {
    let site = Site::new().await;
    let (batcher, echo) = site.running(3);
    let cx = ann();
    let said: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let input = site.upload(&cx, "batch", lines(&said.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let id = batcher.create_batch(&cx, asking(input)).await.unwrap().id;
    until(&batcher, &cx, &id, |batch| batch.completed == 3).await;
    let batch = batcher.cancel_batch(&cx, CancelBatchRequest { id: id.clone() }).await.unwrap();
    assert_eq!(batch.status(), BatchStatus::Cancelling);
    let batch = ended(&batcher, &cx, &id).await;
    assert_eq!((batch.status(), batch.completed, batch.total), (BatchStatus::Cancelled, 3, 50), "{batch:?}");
    assert_eq!(site.content(&cx, &batch.output_file_id).await.len(), 3);
    assert!(batch.error_file_id.is_empty() && batch.cancelling.is_some());
    // Three that were answered and those that were under way: no more than run at once.
    assert!(echo.asked.lock().unwrap().len() <= 3 + manifest::Batches::default().lines_at_once);
    // Again changes nothing.
    assert_eq!(batcher.cancel_batch(&cx, CancelBatchRequest { id }).await.unwrap(), batch);
}

#[tokio::test]
async fn a_batch_whose_time_is_over_says_so_of_each_line_that_was_not_run() {
    let cx = ann();
    let (mut site, mut batch) = expired_in(2, &cx).await;
    if batch.completed < 2 {
        // The machine stood still before they were answered.
        (site, batch) = expired_in(20, &cx).await;
    }
    assert_eq!((batch.status(), batch.completed, batch.failed), (BatchStatus::Expired, 2, 1), "{batch:?}");
    let errors = site.content(&cx, &batch.error_file_id).await;
    assert_eq!((&errors[0]["custom_id"], &errors[0]["error"]["code"]), (&json!("c1"), &json!("batch_expired")), "{errors:?}");
    assert_eq!(errors[0]["response"], Value::Null);
    assert_eq!(site.content(&cx, &batch.output_file_id).await.len(), 2);
}

/// A batch of three lines whose time is over before the second is answered, at its end.
async fn expired_in(seconds: i64, cx: &Context) -> (Site, Batch) {
    let site = Site::new().await;
    let input = site.upload(cx, "batch", lines(&["a", "hang", "b"])).await;
    let mut expires = ids::now();
    expires.seconds += seconds;
    let batch = Batch {
        id: ids::new("batch"),
        endpoint: CHAT.into(),
        input_file_id: input,
        status: BatchStatus::Validating.into(),
        created: Some(ids::now()),
        expires: Some(expires),
        owner: "ann".into(),
        ..Batch::default()
    };
    let author = Caller { principal: "ann".into(), tenant: "acme".into(), ..Caller::default() };
    site.store.insert_batch(&batch, &author).await.unwrap();
    let (batcher, _) = site.running(1_000);
    let batch = ended(&batcher, cx, &batch.id).await;
    (site, batch)
}

/// What a key may is asked when a line runs, not when the batch was made.
#[tokio::test]
async fn a_batch_runs_as_its_key_is_now_and_stops_asking_when_the_key_is_revoked() {
    let site = Site::new().await;
    let mut key = ApiKey {
        id: ids::new("key"),
        tenant: "acme".into(),
        principal: "ann".into(),
        attributes: [("team".into(), "blue".into())].into(),
        ..ApiKey::default()
    };
    site.store.insert_api_key(&key, "hash").await.unwrap();
    // When it was made, the key had a role that it has no more.
    let who = Authenticated { principal: ann().principal().clone(), credential: key.id.clone(), ..Authenticated::default() };
    let cx = Context::default().with_authenticated(&who);
    let input = site.upload(&cx, "batch", lines(&["a", "b", "c"])).await;
    let config = manifest::Batches { lines_at_once: 1, ..manifest::Batches::default() };
    let (tasks, shutdown) = (site.deps.tasks.clone(), site.deps.shutdown.child_token());
    let batcher = Batcher::new(site.store.clone(), site.files.clone(), config, tasks, shutdown);
    let echo = Arc::new(Echo { asked: Mutex::default(), answers: Semaphore::new(1) });
    batcher.start(echo.clone());
    let id = batcher.create_batch(&cx, asking(input)).await.unwrap().id;
    // One line is answered, and the next is under way.
    until(&batcher, &cx, &id, |batch| batch.completed == 1 && echo.asked.lock().unwrap().len() == 2).await;
    key.revoked = Some(ids::now());
    site.store.revoke_api_key(&key).await.unwrap();
    echo.answers.add_permits(10);
    let batch = ended(&batcher, &cx, &id).await;
    assert_eq!((batch.status(), batch.completed, batch.failed), (BatchStatus::Completed, 2, 1), "{batch:?}");
    let errors = site.content(&cx, &batch.error_file_id).await;
    assert_eq!(errors[0]["response"]["status_code"], 401, "{errors:?}");
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "invalid_api_key");
    let asked = echo.asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "a revoked key asked once more");
    let first = &asked[0].0;
    assert!(first.principal().roles.is_empty(), "the role that the key has no more was used");
    assert_eq!((first.attributes()["team"].as_str(), first.priority()), ("blue", Priority::Batch));
}

/// What its key may is the key's own tenant's, whoever the batch is of.
#[tokio::test]
async fn a_batch_of_one_whom_a_delegate_spoke_for_is_charged_to_the_delegates_key() {
    let site = Site::new().await;
    let key = ApiKey { id: ids::new("key"), tenant: "gate".into(), principal: "gateway".into(), ..ApiKey::default() };
    site.store.insert_api_key(&key, "hash").await.unwrap();
    let credential = format!("{DELEGATE}{}", key.id);
    let who = Authenticated { principal: ann().principal().clone(), credential, ..Authenticated::default() };
    let cx = Context::default().with_authenticated(&who);
    let input = site.upload(&cx, "batch", lines(&["a"])).await;
    let (batcher, echo) = site.running(1);
    let id = batcher.create_batch(&cx, asking(input)).await.unwrap().id;
    assert_eq!(ended(&batcher, &cx, &id).await.completed, 1);
    let asked = echo.asked.lock().unwrap();
    let shown = asked[0].0.key().unwrap();
    assert_eq!((asked[0].0.tenant(), shown.id, shown.tenant), ("acme", key.id.as_str(), "gate"));
}

#[tokio::test]
async fn a_batch_that_waits_for_its_quota_holds_up_no_other() {
    let site = Site::new().await;
    let config = manifest::Batches { lines_at_once: 1, ..manifest::Batches::default() };
    let (tasks, shutdown) = (site.deps.tasks.clone(), site.deps.shutdown.child_token());
    let batcher = Batcher::new(site.store.clone(), site.files.clone(), config, tasks, shutdown);
    let echo = Arc::new(Echo { asked: Mutex::default(), answers: Semaphore::new(1_000) });
    batcher.start(echo.clone());
    let bob = Context::new(Principal { id: "bob".into(), tenant: "other".into(), roles: Vec::new() });
    let spent = site.upload(&ann(), "batch", lines(&["spent", "a"])).await;
    let spent = batcher.create_batch(&ann(), asking(spent)).await.unwrap().id;
    let asked = |echo: &Echo| echo.asked.lock().unwrap().iter().map(|(_, body)| body["say"].clone()).collect::<Vec<_>>();
    until(&batcher, &ann(), &spent, |_| asked(&echo) == ["spent"]).await;
    let input = site.upload(&bob, "batch", lines(&["b", "c"])).await;
    let id = batcher.create_batch(&bob, asking(input)).await.unwrap().id;
    assert_eq!(ended(&batcher, &bob, &id).await.completed, 2);
    assert_eq!(asked(&echo), ["spent", "b", "c"], "of the batch that waits, no more lines wait than run at once");
}

#[tokio::test]
async fn two_replicas_share_batches_and_never_a_line() {
    let site = Site::new().await;
    let ((one, one_echo), (_other, other_echo)) = (site.running(1_000), site.running(1_000));
    let cx = ann();
    let mut made = Vec::new();
    for batch in 0..6 {
        let said: Vec<String> = (0..20).map(|n| format!("{batch}-{n}")).collect();
        let input = site.upload(&cx, "batch", lines(&said.iter().map(String::as_str).collect::<Vec<_>>())).await;
        made.push(one.create_batch(&cx, asking(input)).await.unwrap().id);
    }
    for id in &made {
        let batch = ended(&one, &cx, id).await;
        assert_eq!((batch.status(), batch.completed), (BatchStatus::Completed, 20));
    }
    let said = |echo: &Echo| -> Vec<String> {
        echo.asked.lock().unwrap().iter().map(|(_, body)| body["say"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = said(&one_echo);
    all.extend(said(&other_echo));
    assert_eq!(all.len(), 120);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 120, "a line was run twice");
}

#[tokio::test]
async fn anothers_batch_is_not_there_and_a_wrong_request_is_told() {
    let site = Site::new().await;
    let batcher = site.batcher();
    let cx = ann();
    let input = site.upload(&cx, "batch", lines(&["a"])).await;
    let id = batcher.create_batch(&cx, asking(input.clone())).await.unwrap().id;
    for other in [Context::test("acme"), Context::new(Principal { tenant: "other".into(), ..ann().principal().clone() })] {
        let error = batcher.get_batch(&other, GetBatchRequest { id: id.clone() }).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(batcher.cancel_batch(&other, CancelBatchRequest { id: id.clone() }).await.unwrap_err().code(), Code::NotFound);
        assert!(batcher.list_batches(&other, ListBatchesRequest::default()).await.unwrap().batches.is_empty());
        // Nor may it run another's file.
        assert_eq!(batcher.create_batch(&other, asking(input.clone())).await.unwrap_err().field(), Some("input_file_id"));
    }
    let admin = Context::new(Principal { id: "root".into(), tenant: "acme".into(), roles: vec!["admin".into()] });
    assert_eq!(batcher.get_batch(&admin, GetBatchRequest { id }).await.unwrap().owner, "ann");

    let notes = site.upload(&cx, "assistants", "a".into()).await;
    let wrong = [
        (asking(String::new()), "input_file_id"),
        (asking("file-nope".into()), "input_file_id"),
        (asking(notes), "input_file_id"),
        (CreateBatchRequest { endpoint: "/v1/files".into(), ..asking(input.clone()) }, "endpoint"),
        (CreateBatchRequest { completion_window: "2d".into(), ..asking(input.clone()) }, "completion_window"),
        (CreateBatchRequest { completion_window: "0h".into(), ..asking(input.clone()) }, "completion_window"),
        (CreateBatchRequest { output_expires_after_seconds: 5, ..asking(input) }, "output_expires_after.seconds"),
    ];
    for (request, field) in wrong {
        assert_eq!(batcher.create_batch(&cx, request).await.unwrap_err().field(), Some(field));
    }
}

#[tokio::test]
async fn pages_cover_the_batches_newest_first() {
    let site = Site::new().await;
    let batcher = site.batcher();
    let cx = ann();
    let input = site.upload(&cx, "batch", lines(&["a"])).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, batcher.create_batch(&cx, asking(input.clone())).await.unwrap().id);
    }
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = batcher.list_batches(&cx, ListBatchesRequest { page_size: 2, page_token }).await.unwrap();
        seen.extend(page.batches.into_iter().map(|batch| batch.id));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(seen, made);
}
