//! The promises of `Tools`: the built-in ones, and those of another process.

use std::sync::Arc;

use async_trait::async_trait;
use llama_stack_core::{Context, Deps, Error, Registry, Result, Tools, grpc::Remote};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, Part, Tool, ToolDefinition, tools_client::ToolsClient,
};
use llama_stack_tests::{
    conformance::tools::{self, Call},
    served,
};
use llama_stack_tools::Router;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::running::{Running, SCRIPTED};

const CALCULATIONS: [Call; 3] = [
    Call { tool: "calculator", arguments: r#"{"expression":"6 * 7"}"#, answer: "42" },
    Call { tool: "calculator", arguments: r#"{"expression":"2 ^ 10"}"#, answer: "1024" },
    Call { tool: "calculator", arguments: r#"{"expression":"1 / 4"}"#, answer: "0.25" },
];

const FORECASTS: [Call; 3] = [
    Call { tool: "weather", arguments: r#"{"city":"Oslo"}"#, answer: "sunny in Oslo" },
    Call { tool: "weather", arguments: r#"{"city":"Rome"}"#, answer: "sunny in Rome" },
    Call { tool: "sunrise", arguments: r#"{"city":"Oslo"}"#, answer: "at six in Oslo" },
];

/// Tools as someone writes them who knows the proto alone: they check nothing and label nothing. `nap` never ends.
struct Forecast;

#[async_trait]
impl Tools for Forecast {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let city = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;
        let tool = |name, schema| Tool { definition: Some(ToolDefinition::new(name, "", schema)), ..Tool::default() };
        let tools = vec![tool("weather", city), tool("sunrise", city), tool("nap", "")];
        Ok(ListToolsResponse { tools, next_page_token: String::new() })
    }

    async fn invoke_tool(&self, _: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let arguments: Value = serde_json::from_str(&request.arguments).unwrap();
        let city = arguments["city"].as_str().unwrap_or_default();
        let text = match request.name.as_str() {
            "weather" => format!("sunny in {city}"),
            "sunrise" => format!("at six in {city}"),
            "nap" => std::future::pending().await,
            other => return Err(Error::not_found(format!("no tool {other:?}"))),
        };
        Ok(InvokeToolResponse { parts: vec![Part::text(text)], is_error: false, ..InvokeToolResponse::default() })
    }
}

fn nap() -> InvokeToolRequest {
    InvokeToolRequest { name: "nap".into(), ..InvokeToolRequest::default() }
}

async fn provider(kind: &str, config: Value) -> Arc<dyn Tools> {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    registry.tools.build(kind, config, Deps::new(".")).await.unwrap()
}

async fn routed(kind: &str, config: Value) -> Arc<dyn Tools> {
    Arc::new(Router::build(vec![("first".into(), provider(kind, config).await)]).await.unwrap())
}

pub async fn builtin() -> Arc<dyn Tools> {
    routed("inline::builtin", json!({})).await
}

fn of(stack: &Running) -> Arc<dyn Tools> {
    Arc::new(Remote::<ToolsClient<Channel>>::new(stack.channel()))
}

#[tokio::test]
async fn builtin_by_themselves() {
    tools::all(provider("inline::builtin", json!({})).await, &CALCULATIONS).await;
}

#[tokio::test]
async fn builtin_through_the_router() {
    tools::all(builtin().await, &CALCULATIONS).await;
}

#[tokio::test]
async fn builtin_over_a_socket() {
    let served = served::tools(builtin().await).await;
    tools::all(served.client.clone(), &CALCULATIONS).await;
}

#[tokio::test]
async fn builtin_through_a_stack() {
    let stack = Running::start(SCRIPTED).await;
    tools::all(of(&stack), &CALCULATIONS).await;
    stack.stop().await;
}

#[tokio::test]
async fn of_another_process_through_the_router() {
    let forecast = served::tools(Arc::new(Forecast)).await;
    let router = routed("remote::grpc", json!({ "url": forecast.url })).await;
    tools::all(router.clone(), &FORECASTS).await;
    tools::deadline_ends_a_slow_call(router, nap()).await;
}

#[tokio::test]
async fn of_another_process_over_a_socket() {
    let forecast = served::tools(Arc::new(Forecast)).await;
    let served = served::tools(routed("remote::grpc", json!({ "url": forecast.url })).await).await;
    tools::all(served.client.clone(), &FORECASTS).await;
    tools::deadline_ends_a_slow_call(served.client.clone(), nap()).await;
}

#[tokio::test]
async fn of_another_process_through_a_stack() {
    let forecast = served::tools(Arc::new(Forecast)).await;
    let provider = format!("  tools:\n    - {{ id: forecast, type: \"remote::grpc\", config: {{ url: \"{}\" }} }}\n", forecast.url);
    let stack = Running::start(&format!("version: 1\nname: e2e\nproviders:\n{provider}")).await;
    tools::all(of(&stack), &FORECASTS).await;
    tools::deadline_ends_a_slow_call(of(&stack), nap()).await;
    stack.stop().await;
}
