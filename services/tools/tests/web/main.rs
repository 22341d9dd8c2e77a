//! Tools that read the web, against servers that answer in the shape of each API, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use llama_stack_core::{Context, Deps, Error, Registry, Result, Tools};
use llama_stack_proto::v1::{InvokeToolRequest, ListToolsRequest, OnInterrupt, Tool};
use serde_json::{Value, json};
use tokio::net::TcpListener;

mod brave;
mod exa;
mod http_fetch;
mod searxng;
mod tavily;
mod wolfram_alpha;

/// Answers every request with what it was told last, and keeps what it was asked.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    state: Arc<Mutex<Exchange>>,
}

struct Exchange {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    asked: Vec<Asked>,
}

#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Exchange { status: 200, headers: Vec::new(), body: Vec::new(), asked: Vec::new() };
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let app = Router::new().fallback(exchange).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn answers(&self, status: u16, content_type: &str, body: impl Into<Vec<u8>>) {
        let mut state = self.state.lock().unwrap();
        (state.status, state.body) = (status, body.into());
        state.headers = vec![("content-type".into(), content_type.into())];
    }

    fn answers_json(&self, status: u16, body: Value) {
        self.answers(status, "application/json", body.to_string());
    }

    fn adds_header(&self, name: &str, value: &str) {
        self.state.lock().unwrap().headers.push((name.into(), value.into()));
    }

    fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    fn last(&self) -> Asked {
        self.asked().pop().expect("nobody asked")
    }
}

async fn exchange(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let url: url::Url = format!("http://server{uri}").parse().unwrap();
    let query = url.query_pairs().into_owned().collect();
    let mut state = server.state.lock().unwrap();
    state.asked.push(Asked { method, path: uri.path().into(), query, headers, body: body.to_vec() });
    let mut response = (StatusCode::from_u16(state.status).unwrap(), state.body.clone()).into_response();
    response.headers_mut().clear();
    for (name, value) in &state.headers {
        response.headers_mut().append(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    response
}

/// A provider with the id `web`, under the manifest's `egress`.
async fn build_under(egress: Value, kind: &str, config: Value) -> Result<Arc<dyn Tools>> {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let deps = Deps { provider_id: "web".into(), egress: serde_json::from_value(egress).unwrap(), ..Deps::new(".") };
    registry.tools.build(kind, config, deps).await
}

async fn build(kind: &str, config: Value) -> Arc<dyn Tools> {
    build_under(json!({}), kind, config).await.unwrap()
}

/// The texts of an answer, and whether it is a failure.
async fn invoke(tools: &dyn Tools, cx: &Context, name: &str, arguments: Value) -> Result<(bool, Vec<String>)> {
    let request = InvokeToolRequest { name: name.into(), arguments: arguments.to_string(), call_id: "c".into() };
    let response = tools.invoke_tool(cx, request).await?;
    assert!(response.parts.iter().all(|part| part.provenance == format!("tool:{name}")));
    Ok((response.is_error, response.parts.iter().map(|part| part.as_text().unwrap().to_owned()).collect()))
}

/// The results of a search. Put together, they are still apart.
async fn search(tools: &dyn Tools, arguments: Value) -> (bool, Vec<String>) {
    let (is_error, texts) = invoke(tools, &Context::test("a"), "web_search", arguments).await.unwrap();
    let apart: Vec<String> = texts.concat().split("\n\n").map(str::to_owned).collect();
    assert_eq!(apart.len(), texts.len());
    (is_error, apart)
}

/// What a tool that failed says to the model.
async fn told(tools: &dyn Tools, name: &str, arguments: Value) -> String {
    let (is_error, mut texts) = invoke(tools, &Context::test("a"), name, arguments).await.unwrap();
    assert!(is_error, "{texts:?}");
    texts.remove(0)
}

async fn only_tool(tools: &dyn Tools) -> Tool {
    let mut listed = tools.list_tools(&Context::test("a"), ListToolsRequest::default()).await.unwrap().tools;
    assert_eq!(listed.len(), 1);
    listed.remove(0)
}

fn with_key(key: &str) -> Context {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("x-llama-stack-provider-key", format!("web={key}").parse().unwrap());
    Context::from_metadata(&metadata).unwrap()
}

/// What holds for every provider with a key, given an answer of its API: the caller's key goes before the configured one,
/// none at all is an error that says where one goes, and what the service refuses is told to the model.
async fn keys_and_failures(server: &Server, kind: &str, name: &str, good: (&str, String), sent: fn(&Asked) -> String) {
    let arguments = json!({ "query": "q" });
    let url = server.url();
    let (keyed, bare) = (build(kind, json!({ "url": url, "api_key": "stack" })).await, build(kind, json!({ "url": url })).await);

    server.answers(200, good.0, good.1);
    invoke(&*keyed, &Context::test("a"), name, arguments.clone()).await.unwrap();
    assert_eq!(sent(&server.last()), "stack");
    for tools in [&keyed, &bare] {
        invoke(&**tools, &with_key("mine"), name, arguments.clone()).await.unwrap();
        assert_eq!(sent(&server.last()), "mine");
    }
    let before = server.asked().len();
    let error: Error = invoke(&*bare, &Context::test("a"), name, arguments.clone()).await.unwrap_err();
    assert_eq!((error.reason(), server.asked().len()), (Some("provider_key_missing"), before));
    assert!(
        error.message().contains("set api_key in its config, or send one as x-llama-stack-provider-key: web=KEY"),
        "{}",
        error.message()
    );

    for status in [401, 403] {
        server.answers_json(status, json!({ "message": "no" }));
        let text = told(&*keyed, name, arguments.clone()).await;
        assert!(text.contains("api_key of provider \"web\"") && !text.contains("stack\""), "{text}");
        let (is_error, texts) = invoke(&*keyed, &with_key("mine"), name, arguments.clone()).await.unwrap();
        assert!(is_error && texts[0].contains("caller's own key"), "{texts:?}");
    }
    server.answers_json(429, json!({}));
    server.adds_header("retry-after", "7");
    assert!(told(&*keyed, name, arguments.clone()).await.contains("try again in 7 seconds"));
    server.answers(502, "text/html", "<h1>Bad Gateway</h1>");
    assert!(told(&*keyed, name, arguments.clone()).await.contains("status 502"));
    server.answers_json(422, json!({ "detail": "query too long" }));
    assert!(told(&*keyed, name, arguments.clone()).await.contains("query too long"));

    let tool = only_tool(&*keyed).await;
    assert_eq!((tool.on_interrupt(), tool.reads_untrusted, tool.changes_state), (OnInterrupt::Retry, true, false));
}

/// The operator's address is allowed without a rule; a rule that denies it is found at start.
#[tokio::test]
async fn a_configured_server_is_allowed_unless_it_is_denied() {
    let server = Server::new().await;
    server.answers_json(200, json!({ "results": [] }));
    let tools = build("remote::searxng", json!({ "url": server.url() })).await;
    assert_eq!(search(&*tools, json!({ "query": "q" })).await, (false, vec!["no results for \"q\"".into()]));
    let refused = build_under(json!({ "deny": ["127.0.0.0/8"] }), "remote::searxng", json!({ "url": server.url() })).await;
    let error = refused.err().unwrap();
    assert_eq!((error.reason(), error.field()), (Some("egress_refused"), Some("config.url")));
    let secret = Server::new().await;
    server.answers(302, "text/plain", "");
    server.adds_header("location", &format!("{}/search", secret.url()));
    assert!(told(&*tools, "web_search", json!({ "query": "q" })).await.contains("may not be reached"));
    assert_eq!(secret.asked().len(), 0);
}

#[tokio::test]
async fn a_search_for_nothing_is_told() {
    let tools = build("remote::searxng", json!({ "url": "http://127.0.0.1:1" })).await;
    assert!(told(&*tools, "web_search", json!({ "query": " " })).await.contains("say what to search for"));
    assert!(told(&*tools, "web_search", json!({ "query": "q" })).await.contains("127.0.0.1 cannot be connected to"));
}
