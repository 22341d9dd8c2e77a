//! Traces, as a collector receives them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode},
    routing::post,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use llama_stack_core::{
    Agents, Context, Deps, Registry,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    AgentConfig, CreateAgentRequest, CreateTurnRequest, InvokeToolRequest, Message, agents_client::AgentsClient, turn_event::Event,
};
use prost::Message as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::Channel;

use crate::{
    client::{PATIENCE, Server, chat, start_with, streamed},
    identity::Authority,
};

/// The part of OTLP that is looked at here.
/// Source: `opentelemetry/proto/{collector/trace/v1/trace_service,trace/v1/trace,common/v1/common}.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    flag: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    integer: Option<i64>,
}

/// Source: `opentelemetry/proto/{collector/metrics/v1/metrics_service,metrics/v1/metrics}.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportMeasures {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMeasures>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceMeasures {
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMeasures>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeMeasures {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Measure>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Measure {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(message, optional, tag = "9")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Point>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Point {
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(double, repeated, tag = "7")]
    bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
}

impl Point {
    fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.text.as_deref()
    }
}

impl Span {
    fn value(&self, key: &str) -> Option<Any> {
        self.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()
    }

    fn text(&self, key: &str) -> Option<String> {
        self.value(key)?.text
    }

    fn integer(&self, key: &str) -> Option<i64> {
        self.value(key)?.integer
    }

    /// In a stable word, where the span says that it failed.
    fn failure(&self) -> Option<String> {
        let failed = self.status.as_ref().is_some_and(|status| status.code == ERROR);
        self.text("error.type").filter(|_| failed)
    }
}

/// Takes spans by gRPC, written by hand: one method, one message each way.
async fn collector() -> (SocketAddr, mpsc::Receiver<Span>) {
    let (router, received) = collecting();
    (served(router).await, received)
}

fn collecting() -> (Router, mpsc::Receiver<Span>) {
    let (send, received) = mpsc::channel(64);
    (Router::new().route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export)).with_state(send), received)
}

/// A socket with the certificate in this folder.
struct OverTls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl OverTls {
    async fn bind(folder: &Path) -> Self {
        let cert = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![cert], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl axum::serve::Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = TcpListener::accept(&self.listener).await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        TcpListener::local_addr(&self.listener)
    }
}

/// Takes measures.
async fn measurer() -> (SocketAddr, mpsc::Receiver<Measure>) {
    let (send, received) = mpsc::channel(64);
    let router = Router::new().route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(measured)).with_state(send);
    (served(router).await, received)
}

async fn served(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn measured(State(send): State<mpsc::Sender<Measure>>, body: Bytes) -> Response<Body> {
    let export = ExportMeasures::decode(&body[5..]).unwrap();
    for measure in export.resource_metrics.into_iter().flat_map(|of| of.scope_metrics).flat_map(|of| of.metrics) {
        send.send(measure).await.unwrap();
    }
    accepted()
}

async fn export(State(send): State<mpsc::Sender<Span>>, body: Bytes) -> Response<Body> {
    let export = Export::decode(&body[5..]).unwrap();
    for span in export.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans) {
        send.send(span).await.unwrap();
    }
    accepted()
}

fn accepted() -> Response<Body> {
    let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
    let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, std::io::Error>)));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

/// Does `work`, stops the stack, and returns what the collector got by then.
async fn traced(more: &str, work: impl AsyncFnOnce(&Server)) -> Vec<Span> {
    traced_with("  tools: [ { id: builtin, type: inline::builtin } ]", more, work).await
}

/// With these providers of tools.
async fn traced_with(tools: &str, more: &str, work: impl AsyncFnOnce(&Server)) -> Vec<Span> {
    let (address, mut received) = collector().await;
    let server = start_with(&format!("{tools}\ntelemetry: {{ otlp_endpoint: \"http://{address}\"{more} }}\n")).await;
    work(&server).await;
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    received.close();
    let mut spans = Vec::new();
    while let Some(span) = received.recv().await {
        spans.push(span);
    }
    spans
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_is_a_span_below_the_callers_trace_without_its_words() {
    let spans = traced("", async |server| {
        let request = server.http.post(server.url("/v1/chat/completions")).header("traceparent", TRACE);
        request.json(&chat("my secret")).send().await.unwrap().text().await.unwrap();
        server.transcript("/v1/chat/completions", &streamed("my secret")).await;
    })
    .await;
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_eq!(span.name, "chat parrot");
        assert_eq!(span.text("gen_ai.operation.name").as_deref(), Some("chat"));
        assert_eq!((span.kind, span.text("gen_ai.provider.name").as_deref()), (CLIENT, Some("llama-stack")));
        assert_eq!(span.text("gen_ai.request.model").as_deref(), Some("parrot"));
        assert_eq!(span.integer("gen_ai.usage.cache_read.input_tokens"), Some(3));
        assert_eq!((span.integer("gen_ai.usage.input_tokens"), span.integer("gen_ai.usage.output_tokens")), (Some(7), Some(2)));
        assert!(span.value("gen_ai.response.finish_reasons").is_some());
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
    let below =
        spans.iter().find(|span| span.parent_span_id == 0xb7ad_6b71_6920_3331_u64.to_be_bytes()).expect("no span below the caller's");
    assert_eq!(below.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_and_its_failure_are_told_in_the_conventions_words() {
    let spans = traced("", async |server| {
        let mut asked = streamed("my secret");
        let more = json!({ "n": 2, "seed": 7, "response_format": { "type": "json_object" }, "stop": ["my secret"] });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.transcript("/v1/chat/completions", &asked).await;
        server.post("/v1/chat/completions", &chat("fail at once")).await;
        server.answer("/v1/embeddings", &json!({ "model": "org/vectors", "input": "my secret" })).await;
    })
    .await;
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (failed, answered): (Vec<_>, Vec<_>) = named("chat parrot").into_iter().partition(|span| span.failure().is_some());
    let ([answered], [failed]) = (&answered[..], &failed[..]) else { panic!("{spans:?}") };
    assert_eq!((answered.integer("gen_ai.request.choice.count"), answered.integer("gen_ai.request.seed")), (Some(2), Some(7)));
    assert_eq!(answered.text("gen_ai.output.type").as_deref(), Some("json"));
    assert_eq!(answered.value("gen_ai.request.stream").unwrap().flag, Some(true));
    assert!(answered.value("gen_ai.response.time_to_first_chunk").is_some());
    assert_eq!(failed.failure().as_deref(), Some("stream_broken"));
    assert!(failed.value("gen_ai.request.stream").is_none() && failed.value("gen_ai.response.finish_reasons").is_none());
    let [vectors] = named("embeddings org/vectors")[..] else { panic!("{spans:?}") };
    assert_eq!(vectors.text("gen_ai.operation.name").as_deref(), Some("embeddings"));
    assert_eq!(vectors.text("gen_ai.provider.name").as_deref(), Some("llama-stack"));
    assert_eq!((vectors.kind, vectors.integer("gen_ai.usage.input_tokens")), (CLIENT, Some(7)));
    assert!(!format!("{spans:?}").contains("secret"), "{spans:?}");
}

/// One trace: the turn, and below it what it asked of models and tools.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_a_span_over_its_inferences_and_tools() {
    let spans = traced("", async |server| {
        let agents = Remote::<AgentsClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
        let config =
            AgentConfig { model: "parrot".into(), name: "clerk".into(), tools: vec!["calculator".into()], ..AgentConfig::default() };
        let input = vec![Message::user("calculate")];
        let request = CreateTurnRequest { config: Some(config), input, ..CreateTurnRequest::default() };
        let events: Vec<_> = agents.create_turn(&Context::test("acme"), request).await.unwrap().collect().await;
        assert!(matches!(&events.last().unwrap().as_ref().unwrap().event, Some(Event::Ended(turn)) if turn.status == 3), "{events:?}");
    })
    .await;
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [turn] = named("invoke_agent clerk")[..] else { panic!("{spans:?}") };
    let (chats, tools) = (named("chat parrot"), named("execute_tool calculator"));
    assert_eq!((chats.len(), tools.len()), (2, 1), "{spans:?}");
    for below in chats.iter().chain(&tools) {
        assert_eq!((&below.trace_id, &below.parent_span_id), (&turn.trace_id, &turn.span_id));
    }
    assert_eq!(turn.integer("gen_ai.usage.output_tokens"), Some(4));
    assert!(turn.text("gen_ai.conversation.id").is_some());
}

/// Ids are attributes: a span's name is one that others have too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_of_an_agent_without_a_name_is_not_called_by_its_id() {
    let spans = traced("", async |server| {
        let agents = Remote::<AgentsClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
        let (cx, config) = (Context::test("acme"), AgentConfig { model: "parrot".into(), ..AgentConfig::default() });
        let agent = agents.create_agent(&cx, CreateAgentRequest { config: Some(config) }).await.unwrap();
        let request = CreateTurnRequest { agent_id: agent.id, input: vec![Message::user("hi")], ..CreateTurnRequest::default() };
        let events: Vec<_> = agents.create_turn(&cx, request).await.unwrap().collect().await;
        assert!(events.iter().all(Result::is_ok), "{events:?}");
    })
    .await;
    let turn = spans.iter().find(|span| span.name == "invoke_agent").unwrap_or_else(|| panic!("{spans:?}"));
    assert!(turn.text("gen_ai.agent.id").is_some() && turn.value("gen_ai.agent.name").is_none(), "{turn:?}");
}

/// An MCP server that does not know the newer handshake, and notes the `_meta` of calls. Some it refuses, as it is told to.
async fn noting() -> (SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let noted: Arc<Mutex<Vec<Value>>> = Arc::default();
    let answer = async |State(noted): State<Arc<Mutex<Vec<Value>>>>, axum::Json(asked): axum::Json<Value>| {
        let refused = |code: i32| {
            let error = json!({ "code": code, "message": "no" });
            (StatusCode::OK, axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error })))
        };
        let result = match asked["method"].as_str().unwrap_or_default() {
            "initialize" => json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "clock", "version": "1" } }),
            "tools/list" => json!({ "tools": [{ "name": "now", "inputSchema": { "type": "object" } }] }),
            "tools/call" => {
                noted.lock().unwrap().push(asked["params"]["_meta"].clone());
                match asked["params"]["arguments"]["say"].as_str() {
                    Some("never") => return refused(-32050),
                    Some("later") => std::future::pending().await,
                    Some("sorry") => json!({ "content": [{ "type": "text", "text": "sorry" }], "isError": true }),
                    _ => json!({ "content": [{ "type": "text", "text": "noon" }] }),
                }
            }
            _ if asked.get("id").is_none() => return (StatusCode::ACCEPTED, axum::Json(Value::Null)),
            _ => return refused(-32601),
        };
        (StatusCode::OK, axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })))
    };
    (served(Router::new().route("/mcp", post(answer)).with_state(noted.clone())).await, noted)
}

/// The call is a span of its own below the tool's, under MCP's names, and the server is told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_an_mcp_server_is_a_span_whose_context_goes_along_in_meta() {
    let (address, noted) = noting().await;
    let tools = format!("  tools: [ {{ id: clock, type: remote::mcp, config: {{ url: \"http://{address}/mcp\" }} }} ]");
    let spans = traced_with(&tools, "", async |server| {
        let request = server.http.post(server.url("/v1/tools/now/invoke")).header("traceparent", TRACE).json(&json!({ "arguments": {} }));
        let (status, body) = {
            let response = request.send().await.unwrap();
            (response.status(), response.text().await.unwrap())
        };
        assert!(status == 200 && body.contains("noon"), "{body}");
    })
    .await;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:?}"));
    let (tool, call) = (named("execute_tool now"), named("tools/call now"));
    assert_eq!((&call.trace_id, &call.parent_span_id), (&tool.trace_id, &tool.span_id));
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "now"),
        ("mcp.protocol.version", "2025-06-18"),
        ("network.transport", "tcp"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(call.text(key).as_deref(), Some(value), "{key}");
    }
    // One call is counted once, by the span of the tool.
    assert!(call.value("gen_ai.operation.name").is_none() && tool.value("gen_ai.operation.name").is_some(), "{spans:?}");
    assert_eq!((call.kind, call.integer("server.port")), (CLIENT, Some(address.port().into())));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected = format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id));
    assert_eq!(noted.lock().unwrap()[0]["traceparent"], expected.as_str());
}

/// By JSON-RPC's code, or as the failure of the tool that the server says it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_at_an_mcp_server_is_an_error_of_its_kind() {
    let (address, _) = noting().await;
    let tools = format!("  tools: [ {{ id: clock, type: remote::mcp, config: {{ url: \"http://{address}/mcp\" }} }} ]");
    let spans = traced_with(&tools, "", async |server| {
        for say in ["never", "sorry"] {
            let body = server.post("/v1/tools/now/invoke", &json!({ "arguments": { "say": say } })).await.json::<Value>().await.unwrap();
            assert_eq!(body["is_error"], true, "{body}");
        }
    })
    .await;
    let failures = |name: &str| spans.iter().filter(|span| span.name == name).map(Span::failure).collect::<Vec<_>>();
    assert_eq!(failures("tools/call now"), [Some("-32050".to_owned()), Some("tool_error".to_owned())]);
    assert_eq!(failures("execute_tool now"), vec![Some("tool_error".to_owned()); 2]);
    assert!(spans.iter().any(|span| span.text("rpc.response.status_code").as_deref() == Some("-32050")), "{spans:?}");
}

/// The tool's caller is told in words, so only the span says it to programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_an_mcp_server_does_not_answer_in_time_is_an_error() {
    let (address, _) = noting().await;
    let config = format!("{{ url: \"http://{address}/mcp\", timeout_seconds: 0.2 }}");
    let spans = traced_with(&format!("  tools: [ {{ id: clock, type: remote::mcp, config: {config} }} ]"), "", async |server| {
        let body = server.post("/v1/tools/now/invoke", &json!({ "arguments": { "say": "later" } })).await.text().await.unwrap();
        assert!(body.contains("did not answer within"), "{body}");
    })
    .await;
    let call = spans.iter().find(|span| span.name == "tools/call now").unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!(call.failure().as_deref(), Some("timeout"), "{call:?}");
}

/// The other side: who calls this stack as an MCP server says in `_meta` what the call is a part of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_at_mcp_is_a_span_below_its_callers_and_above_what_it_does() {
    let spans = traced("", async |server| {
        let mut registry = Registry::default();
        llama_stack_tools::register(&mut registry);
        let deps = Deps { provider_id: "far".into(), ..Deps::new(".") };
        let mcp = registry.tools.build("remote::mcp", json!({ "url": server.url("/mcp") }), deps).await.unwrap();
        let cx = Context::test("acme").with_trace(TRACE);
        for (expression, failed) in [("1+1", false), ("1/", true)] {
            let arguments = json!({ "expression": expression }).to_string();
            let call = InvokeToolRequest { name: "calculator".into(), arguments, ..InvokeToolRequest::default() };
            assert_eq!(mcp.invoke_tool(&cx, call).await.unwrap().is_error, failed, "{expression}");
        }
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "made-up", "arguments": {} } });
        let request = server.http.post(server.url("/mcp")).header("mcp-protocol-version", "2025-06-18");
        let request = request.header("accept", "application/json, text/event-stream").json(&call);
        let body = request.send().await.unwrap().text().await.unwrap();
        assert!(body.contains("no tool"), "{body}");
    })
    .await;
    // A name that somebody made up becomes none of a span's; why it failed is told.
    assert!(!spans.iter().any(|span| span.name.contains("made-up") || span.text("gen_ai.tool.name").as_deref() == Some("made-up")));
    let unknown = spans.iter().find(|span| span.name == "tools/call").unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!(unknown.failure().as_deref(), Some("-32602"), "{unknown:?}");
    assert!(unknown.status.as_ref().unwrap().message.contains("no tool"), "{unknown:?}");
    let calls: Vec<&Span> = spans.iter().filter(|span| span.name == "tools/call calculator").collect();
    assert_eq!(calls.iter().map(|call| call.failure()).collect::<Vec<_>>(), [None, Some("tool_error".to_owned())], "{spans:?}");
    for call in calls {
        assert_eq!((call.kind, call.text("mcp.method.name").as_deref()), (SERVER, Some("tools/call")));
        assert_eq!(call.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert!(call.text("jsonrpc.request.id").is_some() && call.text("mcp.protocol.version").is_some(), "{call:?}");
        let below = |span: &&Span| span.name == "execute_tool calculator" && span.parent_span_id == call.span_id;
        assert_eq!(spans.iter().filter(below).count(), 1, "{spans:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_recorded_where_the_manifest_asks_for_it() {
    let spans = traced(", capture_content: true", async |server| {
        server.transcript("/v1/chat/completions", &streamed("my secret")).await;
    })
    .await;
    assert!(spans[0].text("gen_ai.input.messages").unwrap().contains("my secret"));
    let answers: Value = serde_json::from_str(&spans[0].text("gen_ai.output.messages").unwrap()).unwrap();
    let parts = json!([{ "type": "text", "content": "Hello" }]);
    assert_eq!(answers, json!([{ "role": "assistant", "parts": parts, "finish_reason": "stop" }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_harms_nobody() {
    let server = start_with("telemetry: { otlp_endpoint: \"http://127.0.0.1:1\" }\n").await;
    server.answer("/v1/chat/completions", &chat("hi")).await;
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
}

/// And nothing is told to one that nobody vouches for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_is_reached_over_tls_where_its_authority_is_named() {
    let (folder, ours) = (TempDir::new().unwrap(), Authority::new());
    ours.write(folder.path());
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, ours.pem()).unwrap();
    for (more, expected) in [(format!(", otlp_ca: \"{}\"", ca.display()), true), (String::new(), false)] {
        let (router, mut received) = collecting();
        let collector = OverTls::bind(folder.path()).await;
        let address = collector.listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(collector, router).await });
        let server = start_with(&format!("telemetry: {{ otlp_endpoint: \"https://{address}\"{more} }}\n")).await;
        server.answer("/v1/chat/completions", &chat("hi")).await;
        server.stop.cancel();
        timeout(Duration::from_secs(30), server.served).await.expect("did not stop").unwrap().unwrap();
        received.close();
        assert_eq!(received.recv().await.is_some(), expected, "with {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_times_are_measured_under_the_conventions_names() {
    let (address, mut received) = measurer().await;
    let server = start_with(&format!("telemetry: {{ otlp_endpoint: \"http://{address}\" }}\n")).await;
    server.transcript("/v1/chat/completions", &streamed("my secret")).await;
    server.answer("/v1/embeddings", &json!({ "model": "org/vectors", "input": "my secret" })).await;
    server.post("/v1/chat/completions", &chat("fail at once")).await;
    // A name that somebody made up becomes no label.
    let mut unknown = chat("hi");
    unknown["model"] = "made-up".into();
    server.post("/v1/chat/completions", &unknown).await;
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    received.close();
    let mut measures = Vec::new();
    while let Some(measure) = received.recv().await {
        measures.push(measure);
    }
    assert!(!format!("{measures:?}").contains("secret") && !format!("{measures:?}").contains("made-up"), "{measures:?}");
    let points = |name: &str, unit: &str| -> Vec<Point> {
        let measure = measures.iter().rev().find(|measure| measure.name == name).unwrap_or_else(|| panic!("no {name}: {measures:?}"));
        assert_eq!(measure.unit, unit);
        measure.histogram.clone().unwrap().points
    };
    let of = |points: &[Point], operation: &str, key: &str, value: Option<&str>| -> Point {
        let found = points.iter().find(|point| point.text("gen_ai.operation.name") == Some(operation) && point.text(key) == value);
        found.unwrap_or_else(|| panic!("no {operation} {key} {value:?}: {points:?}")).clone()
    };
    let tokens = points("gen_ai.client.token.usage", "{token}");
    assert_eq!(of(&tokens, "chat", "gen_ai.token.type", Some("input")).sum, Some(7.0));
    let output = of(&tokens, "chat", "gen_ai.token.type", Some("output"));
    assert_eq!((output.sum, output.text("gen_ai.request.model")), (Some(2.0), Some("parrot")));
    assert_eq!(of(&tokens, "embeddings", "gen_ai.token.type", Some("input")).sum, Some(7.0));
    let durations = points("gen_ai.client.operation.duration", "s");
    assert_eq!(of(&durations, "chat", "error.type", None).count, 1);
    assert_eq!(of(&durations, "chat", "error.type", Some("stream_broken")).count, 1);
    assert_eq!(of(&durations, "embeddings", "error.type", None).count, 1);
    let first = points("gen_ai.server.time_to_first_token", "s");
    let per_token = points("gen_ai.server.time_per_output_token", "s");
    assert_eq!((first[0].count, per_token[0].count), (1, 1));
    // As the conventions have them.
    assert_eq!(tokens[0].bounds, (0..14).map(|power| 4_f64.powi(power)).collect::<Vec<_>>());
    assert_eq!(durations[0].bounds, (0..14).map(|power| 0.01 * 2_f64.powi(power)).collect::<Vec<_>>());
    assert_eq!(first[0].bounds, [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]);
    assert_eq!(per_token[0].bounds, [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]);
}
