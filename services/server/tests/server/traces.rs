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
    Agents, Context,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{AgentConfig, CreateTurnRequest, Message, agents_client::AgentsClient, turn_event::Event};
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
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
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
        assert_eq!(span.text("gen_ai.request.model").as_deref(), Some("parrot"));
        assert_eq!((span.integer("gen_ai.usage.input_tokens"), span.integer("gen_ai.usage.output_tokens")), (Some(7), Some(2)));
        assert!(span.value("gen_ai.response.finish_reasons").is_some());
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
    let below =
        spans.iter().find(|span| span.parent_span_id == 0xb7ad_6b71_6920_3331_u64.to_be_bytes()).expect("no span below the caller's");
    assert_eq!(below.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
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

/// An MCP server that does not know the newer handshake, and notes the `_meta` of calls.
async fn noting() -> (SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let noted: Arc<Mutex<Vec<Value>>> = Arc::default();
    let answer = async |State(noted): State<Arc<Mutex<Vec<Value>>>>, axum::Json(asked): axum::Json<Value>| {
        let result = match asked["method"].as_str().unwrap_or_default() {
            "initialize" => json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "clock", "version": "1" } }),
            "tools/list" => json!({ "tools": [{ "name": "now", "inputSchema": { "type": "object" } }] }),
            "tools/call" => {
                noted.lock().unwrap().push(asked["params"]["_meta"].clone());
                json!({ "content": [{ "type": "text", "text": "noon" }] })
            }
            _ if asked.get("id").is_none() => return (StatusCode::ACCEPTED, axum::Json(Value::Null)),
            _ => {
                let error = json!({ "code": -32601, "message": "unknown" });
                return (StatusCode::OK, axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error })));
            }
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
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "now"),
        ("mcp.protocol.version", "2025-06-18"),
        ("network.transport", "tcp"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(call.text(key).as_deref(), Some(value), "{key}");
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected = format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id));
    assert_eq!(noted.lock().unwrap()[0]["traceparent"], expected.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_recorded_where_the_manifest_asks_for_it() {
    let spans = traced(", capture_content: true", async |server| {
        server.transcript("/v1/chat/completions", &streamed("my secret")).await;
    })
    .await;
    assert!(spans[0].text("gen_ai.input.messages").unwrap().contains("my secret"));
    assert!(spans[0].text("gen_ai.output.messages").unwrap().contains("Hello"));
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
    assert_eq!(points("gen_ai.server.time_to_first_token", "s")[0].count, 1);
    assert_eq!(points("gen_ai.server.time_per_output_token", "s")[0].count, 1);
}
