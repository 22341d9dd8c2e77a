//! Tools of another process, over a real socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Context, Deps, Registry, Result, Tools, grpc::Served};
use llama_stack_proto::v1::{InvokeToolRequest, ListToolsRequest, tools_server::ToolsServer};
use llama_stack_tools::{Router, RustTools, Tool, ToolFailure};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Asked {
    city: String,
}

struct Weather;

#[async_trait::async_trait]
impl Tool for Weather {
    type Args = Asked;
    const NAME: &'static str = "weather";
    const DESCRIPTION: &'static str = "Tells the weather.";

    async fn call(&self, cx: &Context, asked: Asked) -> Result<String, ToolFailure> {
        match asked.city.as_str() {
            "Atlantis" => Err("Atlantis is under water".into()),
            "Nowhere" => Err(llama_stack_core::Error::new(Code::DataLoss, "the atlas is torn").into()),
            "Slow" => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Ok(String::new())
            }
            city => Ok(format!("sunny in {city} for {} under {}", cx.tenant(), cx.idempotency_key().unwrap_or("no key"))),
        }
    }
}

struct Server {
    shutdown: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Server {
    /// Closes its connections too.
    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.done.await.unwrap();
    }
}

fn serve(listener: TcpListener) -> Server {
    let tools: Arc<dyn Tools> = Arc::new(RustTools::new().with(Weather));
    let server = tonic::transport::Server::builder().add_service(ToolsServer::new(Served(tools)));
    let (shutdown, asked) = oneshot::channel::<()>();
    let until = async { drop(asked.await) };
    let done = tokio::spawn(async move { server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), until).await.unwrap() });
    Server { shutdown, done }
}

async fn provider(address: SocketAddr) -> Arc<dyn Tools> {
    provider_within(60.0, address).await
}

/// A provider of these seconds for each call and list.
async fn provider_within(seconds: f64, address: SocketAddr) -> Arc<dyn Tools> {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let config = serde_json::json!({ "url": format!("http://{address}"), "timeout_seconds": seconds, "list_timeout_seconds": seconds });
    registry.tools.build("remote::grpc", config, Deps::new(".")).await.unwrap()
}

async fn ask(tools: &dyn Tools, city: &str) -> Result<(bool, String)> {
    let cx = Context::test("acme").with_idempotency_key("k7");
    let arguments = format!("{{\"city\":\"{city}\"}}");
    let response = tools.invoke_tool(&cx, InvokeToolRequest { name: "weather".into(), arguments, call_id: "c".into() }).await?;
    assert!(response.parts.iter().all(|part| part.provenance == "tool:weather"));
    Ok((response.is_error, response.parts[0].as_text().unwrap().to_owned()))
}

/// Its connections are made by the guard, which the manifest opens.
#[tokio::test]
async fn a_tool_that_is_registered_while_the_stack_runs_is_reached_where_it_may_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve(listener);
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let build = async |egress: serde_json::Value| {
        let deps = Deps { egress: serde_json::from_value(egress).unwrap(), at_run_time: true, ..Deps::new(".") };
        let config = serde_json::json!({ "url": format!("http://localhost:{}", address.port()) });
        registry.tools.build("remote::grpc", config, deps).await
    };
    let error = build(serde_json::json!({})).await.err().unwrap();
    assert_eq!((error.code(), error.field()), (Code::PermissionDenied, Some("config.url")), "{error}");
    let tools = build(serde_json::json!({ "allow": ["127.0.0.1"] })).await.unwrap();
    assert_eq!(ask(&*tools, "Oslo").await.unwrap(), (false, "sunny in Oslo for acme under k7".into()));
    drop(tools);
    server.stop().await;
}

#[tokio::test]
async fn a_remote_tool_is_a_tool() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tools = provider(listener.local_addr().unwrap()).await;
    let hasty = provider_within(0.5, listener.local_addr().unwrap()).await;
    let server = serve(listener);

    let listed = tools.list_tools(&Context::test("acme"), ListToolsRequest::default()).await.unwrap();
    assert_eq!(listed.tools[0].definition.as_ref().unwrap().name, "weather");
    assert_eq!(ask(&*tools, "Oslo").await.unwrap(), (false, "sunny in Oslo for acme under k7".into()));
    assert_eq!(ask(&*tools, "Atlantis").await.unwrap(), (true, "Atlantis is under water".into()));
    let error = ask(&*tools, "Nowhere").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "the atlas is torn"));
    let (is_error, text) = ask(&*hasty, "Slow").await.unwrap();
    assert!(is_error && text.contains("0.5 seconds"), "{text}");
    drop((tools, hasty));
    server.stop().await;
}

#[tokio::test]
async fn a_prefix_tells_the_tools_of_two_servers_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = serve(listener);
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let build = async |config: serde_json::Value| registry.tools.build("remote::grpc", config, Deps::new(".")).await.unwrap();
    let near = build(serde_json::json!({ "url": url })).await;
    let far = build(serde_json::json!({ "url": url, "prefix": "far_" })).await;
    let router = Router::build(vec![("near".into(), near), ("far".into(), far.clone())]).await.unwrap();
    let cx = Context::test("acme");
    for _ in 0..2 {
        let listed = router.list_tools(&cx, ListToolsRequest::default()).await.unwrap().tools;
        let names: Vec<String> = listed.into_iter().map(|tool| tool.definition.unwrap().name).collect();
        assert_eq!(names, ["weather", "far_weather"]);
    }
    let call = |name: &str| InvokeToolRequest { name: name.into(), arguments: r#"{"city":"Oslo"}"#.into(), call_id: "c".into() };
    let answer = router.invoke_tool(&cx, call("far_weather")).await.unwrap();
    assert_eq!((answer.is_error, answer.parts[0].provenance.as_str()), (false, "tool:far_weather"));
    assert_eq!(far.invoke_tool(&cx, call("weather")).await.unwrap_err().code(), Code::NotFound);
    drop((router, far));
    server.stop().await;
}

#[tokio::test]
async fn a_provider_may_come_late_and_come_back() {
    // Nobody listens there yet, and the address is nobody else's while it is held.
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let router = Router::build(vec![("weather".into(), provider(address).await)]).await.unwrap();
    let listed = router.list_tools(&Context::test("acme"), ListToolsRequest::default()).await.unwrap();
    assert!(listed.tools.is_empty());
    assert!(ask_router(&router).await.unwrap().0, "an unknown tool is told to the model");

    for _ in 0..2 {
        let server = serve(TcpListener::bind(address).await.unwrap());
        let (began, mut answer) = (Instant::now(), ask_router(&router).await);
        // The channel waits a moment between attempts to connect.
        while !matches!(answer, Ok((false, _))) && began.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = ask_router(&router).await;
        }
        assert!(!answer.unwrap().0, "the provider is back");
        server.stop().await;
        assert_eq!(ask_router(&router).await.unwrap_err().code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn a_provider_that_hangs_takes_no_other_with_it() {
    // Connections are accepted by the system, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = provider_within(0.5, silent.local_addr().unwrap()).await;
    let weather = provider(listener.local_addr().unwrap()).await;
    let server = serve(listener);
    let router = Router::build(vec![("hung".into(), hung.clone()), ("weather".into(), weather)]).await.unwrap();
    assert!(!ask_router(&router).await.unwrap().0);
    let error = hung.list_tools(&Context::test("acme"), ListToolsRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_timeout")));
    drop(router);
    server.stop().await;
}

async fn ask_router(router: &Router) -> Result<(bool, String)> {
    let request = InvokeToolRequest { name: "weather".into(), arguments: r#"{"city":"Oslo"}"#.into(), call_id: String::new() };
    let response = router.invoke_tool(&Context::test("acme"), request).await?;
    Ok((response.is_error, response.parts[0].as_text().unwrap().to_owned()))
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_at_build() {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let built = registry.tools.build("remote::grpc", serde_json::json!({ "url": "ftp://x" }), Deps::new(".")).await;
    let error = built.err().unwrap();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("config.url")));
}
