//! A batch whose server is killed goes on in the next one: the real binary, a model on a socket, and SIGKILL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::stream;
use llama_stack_core::{Context, EventStream, Inference, Priority, Result};
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind, Usage};
use serde_json::{Value, json};
use support::Server;
use tokio::sync::Semaphore;

const LINES: usize = 60;
const AT_ONCE: usize = 4;
/// Of each answer.
const USED: Usage = Usage { prompt_tokens: 7, completion_tokens: 3, cached_tokens: 2, reasoning_tokens: 1 };

/// Answers as often as the test lets it, and counts what it was asked.
struct Gated {
    asked: Mutex<HashMap<String, usize>>,
    answers: Semaphore,
}

#[async_trait::async_trait]
impl Inference for Gated {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = Model { id: "gated".into(), kind: ModelKind::Chat.into(), context_length: 4096, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        assert_eq!(cx.priority(), Priority::Batch, "the model was not told that nobody waits");
        let text = request.messages.last().unwrap().joined_text();
        *self.asked.lock().unwrap().entry(text.clone()).or_default() += 1;
        self.answers.acquire().await.unwrap().forget();
        Ok(Box::pin(stream::iter([Ok(ChatEvent::text(0, text)), Ok(ChatEvent::finish(0, FinishReason::Stop)), Ok(ChatEvent::usage(USED))])))
    }
}

struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    async fn get(&self, path: &str) -> String {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.text().await.unwrap()
    }

    async fn batch(&self, id: &str) -> Value {
        serde_json::from_str(&self.get(&format!("/v1/batches/{id}")).await).unwrap()
    }

    async fn until(&self, id: &str, is: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1_200 {
            let batch = self.batch(id).await;
            if is(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the batch got no further: {}", self.batch(id).await);
    }

    async fn post(&self, path: &str, kind: &str, body: String) -> Value {
        let request = self.http.post(format!("{}{path}", self.url)).header("content-type", kind).body(body);
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_no_answer_and_runs_no_answered_line_again() {
    let model = Arc::new(Gated { asked: Mutex::default(), answers: Semaphore::new(0) });
    let served = llama_stack_tests::served::inference(model.clone()).await;
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("batches.yaml");
    let text = format!(
        "version: 1\nname: batches\nproviders:\n  inference:\n    - {{ id: gated, type: remote::grpc, config: {{ url: \"{}\" }} }}\n\
         batches: {{ lines_at_once: {AT_ONCE} }}\n",
        served.url
    );
    std::fs::write(&manifest, text).unwrap();
    let manifest = manifest.to_str().unwrap();

    let server = Server::start(home.path(), manifest);
    let client = Client { http: reqwest::Client::new(), url: server.url.clone() };
    let line = |n: usize| {
        let body = json!({ "model": "gated", "messages": [{ "role": "user", "content": format!("line {n}") }] });
        json!({ "custom_id": format!("id-{n}"), "method": "POST", "url": "/v1/chat/completions", "body": body }).to_string()
    };
    let input: Vec<String> = (0..LINES).map(line).collect();
    let form = format!(
        "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--line\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{}\r\n--line--\r\n",
        input.join("\n")
    );
    let file = client.post("/v1/files", "multipart/form-data; boundary=line", form).await;
    let asked = json!({ "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let batch = client.post("/v1/batches", "application/json", asked.to_string()).await;
    let id = batch["id"].as_str().unwrap_or_else(|| panic!("{batch}")).to_owned();

    // A third is answered; then the process is gone, with lines under way.
    model.answers.add_permits(LINES / 3);
    client.until(&id, |batch| batch["request_counts"]["completed"] == LINES / 3).await;
    let answered_before: usize = LINES / 3;
    drop(server);

    let server = Server::start(home.path(), manifest);
    let client = Client { http: reqwest::Client::new(), url: server.url.clone() };
    model.answers.add_permits(LINES * 2);
    let batch = client.until(&id, |batch| batch["status"] == "completed").await;
    assert_eq!(batch["request_counts"], json!({ "total": LINES, "completed": LINES, "failed": 0 }));
    assert_eq!(batch["error_file_id"], Value::Null);
    // Of each line's one answer, on both sides of the kill.
    let usage = json!({
        "input_tokens": 7 * LINES, "input_tokens_details": { "cached_tokens": 2 * LINES },
        "output_tokens": 3 * LINES, "output_tokens_details": { "reasoning_tokens": LINES }, "total_tokens": 10 * LINES,
    });
    assert_eq!((&batch["usage"], &batch["model"]), (&usage, &json!("gated")));

    let output = client.get(&format!("/v1/files/{}/content", batch["output_file_id"].as_str().unwrap())).await;
    let output: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(output.len(), LINES);
    for (n, answer) in output.iter().enumerate() {
        assert_eq!(answer["custom_id"], format!("id-{n}"));
        assert_eq!(answer["response"]["body"]["choices"][0]["message"]["content"], format!("line {n}"));
    }
    let asked = model.asked.lock().unwrap();
    let twice = asked.values().filter(|times| **times == 2).count();
    assert!(asked.len() == LINES && asked.values().all(|times| *times <= 2) && twice <= AT_ONCE, "{asked:?}");
    assert!(answered_before + twice <= LINES);
}
