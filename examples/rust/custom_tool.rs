//! A tool of your own, in about twenty lines: implement `Tools`, listen, name the address in the manifest:
//!
//! ```yaml
//! tools:
//!   - { id: weather, type: remote::grpc, config: { url: "http://127.0.0.1:9000" } }
//! ```
//!
//! `cargo run --release --bin custom_tool`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use llama_stack_core::{Context, Error, Result, Tools, grpc::Served};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, Part, Tool, ToolDefinition, tools_server::ToolsServer,
};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

struct Weather;

#[async_trait::async_trait]
impl Tools for Weather {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let schema = r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;
        let definition = ToolDefinition::new("weather", "The weather in a city, now", schema);
        Ok(ListToolsResponse { tools: vec![Tool { definition: Some(definition), ..Tool::default() }], ..ListToolsResponse::default() })
    }

    async fn invoke_tool(&self, _: &Context, call: InvokeToolRequest) -> Result<InvokeToolResponse> {
        if call.name != "weather" {
            return Err(Error::not_found(format!("no tool {:?}", call.name)));
        }
        let arguments: serde_json::Value =
            serde_json::from_str(&call.arguments).map_err(|error| Error::invalid("arguments", error.to_string()))?;
        // The model reads it, and does better.
        let told = arguments["city"].as_str().map(|city| format!("21 degrees and sunny in {city}"));
        let (text, is_error) = told.map_or_else(|| (r#"the arguments are {"city": "..."}"#.to_owned(), true), |text| (text, false));
        Ok(InvokeToolResponse { parts: vec![Part::text(text)], is_error, ..InvokeToolResponse::default() })
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    let tools: Arc<dyn Tools> = Arc::new(Weather);
    let server = tonic::transport::Server::builder().add_service(ToolsServer::new(Served(tools)));
    server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await?;
    Ok(())
}
