//! A stack on a free port, and an HTTP client of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use llama_stack_core::{Agents, Manifest, Memory, Registry, Result, Safety};
use llama_stack_server::{Options, Stack, bind};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{scripted::Script, shelf::Shelf};

const MANIFEST: &str = "
version: 1
name: test
providers:
  inference:
    - { id: scripted, type: test::scripted }
";

pub(crate) struct Server {
    pub(crate) script: Script,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Result<()>>,
    _stop_on_drop: DropGuard,
    _home: TempDir,
}

pub(crate) async fn start() -> Server {
    start_with("").await
}

/// Longer than anything takes that is to come to its end, on the busiest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// With more lines in the manifest.
pub(crate) async fn start_with(more: &str) -> Server {
    serve(more, |_| ()).await
}

/// With other agents than the runtime's.
pub(crate) async fn start_over(agents: impl Agents) -> Server {
    serve("", |stack| stack.agents = Arc::new(agents)).await
}

/// With a provider `guards` of shields.
pub(crate) async fn start_shielded(shields: Arc<dyn Safety>) -> Server {
    let script = Script::default();
    let mut registry = script.registry();
    registry.safety.add("test::guards", move |_: Value, _| {
        let shields = shields.clone();
        async move { Ok(shields) }
    });
    serve_by(script, &registry, "  safety:\n    - { id: guards, type: test::guards }\n", |_| ()).await
}

/// With banks and files in memory.
pub(crate) async fn start_over_shelf(shelf: Shelf) -> Server {
    let (script, memory) = (Script::default(), shelf.clone());
    let model = script.clone();
    let mut registry = script.registry();
    registry.memory.add("test::shelf", move |_: Value, _| {
        let memory: Arc<dyn Memory> = Arc::new(memory.clone());
        async move { Ok(memory) }
    });
    let change = |stack: &mut Stack| {
        stack.memory = Arc::new(shelf.clone());
        stack.files = Arc::new(shelf);
        // It orders documents as well, which its list of models does not say.
        stack.inference = Arc::new(model);
    };
    serve_by(script, &registry, "  memory:\n    - { id: shelf, type: test::shelf }\n", change).await
}

pub(crate) async fn serve(more: &str, change: impl FnOnce(&mut Stack)) -> Server {
    let script = Script::default();
    let registry = script.registry();
    serve_by(script, &registry, more, change).await
}

async fn serve_by(script: Script, registry: &Registry, more: &str, change: impl FnOnce(&mut Stack)) -> Server {
    let home = TempDir::new().unwrap();
    let mut stack = Stack::build(manifest(more), registry, options(&home)).await.unwrap();
    change(&mut stack);
    let listener = bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let served = tokio::spawn(stack.serve(listener, stop.clone()));
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    Server { script, address, http, served, _stop_on_drop: stop.clone().drop_guard(), stop, _home: home }
}

pub(crate) fn manifest(more: &str) -> Manifest {
    Manifest::parse(&format!("{MANIFEST}{more}"), "test.yaml").unwrap()
}

pub(crate) fn options(home: &TempDir) -> Options {
    Options { home: home.path().into(), on_progress: std::sync::Arc::new(|_| {}) }
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.http.post(self.url(path)).json(body).send().await.unwrap()
    }

    /// The body of an answer that has to be 200, without what differs from run to run.
    pub(crate) async fn answer(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).await;
        let (status, mut body) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{body}");
        redact(&mut body);
        body
    }

    /// The body of an answer that has to be 200, whatever the method. `Null`: no body is sent.
    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, body) = self.send(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {body}");
        body
    }

    /// Status, field and code of an answer that has to be an error.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, Value, Value) {
        let (status, body) = self.send(method, path, body).await;
        assert!(status >= 400, "{method} {path}: {body}");
        (status, body["error"]["param"].clone(), body["error"]["code"].clone())
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.request(method.parse().unwrap(), self.url(path));
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The events of an answer that has to be a stream, one per line, without what differs from run to run.
    pub(crate) async fn transcript(&self, path: &str, body: &Value) -> String {
        let response = self.post(path, body).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        lines(&response.text().await.unwrap())
    }
}

pub(crate) fn chat(text: &str) -> Value {
    json!({ "model": "parrot", "messages": [{ "role": "user", "content": text }] })
}

pub(crate) fn streamed(text: &str) -> Value {
    let mut body = chat(text);
    body["stream"] = true.into();
    body
}

pub(crate) fn lines(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("data: ").map(serde_json::from_str::<Value>) {
        Some(Ok(mut chunk)) => {
            redact(&mut chunk);
            format!("data: {chunk}")
        }
        _ => line.to_owned(),
    };
    text.lines().filter(|text| !text.is_empty()).map(line).collect::<Vec<_>>().join("\n")
}

/// Ids keep their prefix.
fn redact(body: &mut Value) {
    if let Some(id) = body.get("id").and_then(Value::as_str) {
        body["id"] = format!("{}-…", id.split('-').next().unwrap()).into();
    }
    for (field, value) in [("created", 0.into()), ("system_fingerprint", "…".into())] {
        if body.get(field).is_some() {
            body[field] = value;
        }
    }
}
