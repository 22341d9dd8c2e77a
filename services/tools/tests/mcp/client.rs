//! What tests ask a provider.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::{Context, Deps, Registry, Result, Tools};
use llama_stack_proto::v1::{InvokeToolRequest, ListToolsRequest, Tool};
use serde_json::Value;

pub async fn provider(config: Value) -> Arc<dyn Tools> {
    built(config).await.unwrap()
}

pub async fn built(config: Value) -> Result<Arc<dyn Tools>> {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    registry.tools.build("remote::mcp", config, Deps { provider_id: "mcp".into(), ..Deps::new(".") }).await
}

pub fn cx() -> Context {
    Context::test("acme")
}

pub async fn list(tools: &dyn Tools, cx: &Context) -> Result<Vec<Tool>> {
    Ok(tools.list_tools(cx, ListToolsRequest::default()).await?.tools)
}

pub async fn names(tools: &dyn Tools) -> Vec<String> {
    list(tools, &cx()).await.unwrap().into_iter().map(|tool| tool.definition.unwrap().name).collect()
}

pub async fn call(tools: &dyn Tools, cx: &Context, name: &str, arguments: &str) -> Result<(bool, String)> {
    let request = InvokeToolRequest { name: name.into(), arguments: arguments.into(), call_id: "c1".into() };
    let response = tools.invoke_tool(cx, request).await?;
    assert!(response.parts.iter().all(|part| part.provenance == format!("tool:{name}")), "{response:?}");
    Ok((response.is_error, response.parts.iter().filter_map(|part| part.as_text()).collect()))
}

pub async fn ask(tools: &dyn Tools, city: &str) -> Result<(bool, String)> {
    call(tools, &cx(), "weather", &format!("{{\"city\":\"{city}\"}}")).await
}

pub fn sunny(city: &str) -> (bool, String) {
    (false, format!("sunny in {city}"))
}

/// For what has to happen some time, on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Tries until it holds. Fails after far longer than it ever takes.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
