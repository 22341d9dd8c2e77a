//! The tool `__TOOL__`.

use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::contract::{
    InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolGroupsResponse, ListToolsRequest, ListToolsResponse, OnInterrupt,
    Part, RegisterToolGroupRequest, Tool, ToolDefinition, ToolGroup, UnregisterToolGroupRequest, UnregisterToolGroupResponse,
    part::Content, tools_server::Tools,
};

/// What the tool is called.
const NAME: &str = "__TOOL__";

/// What the tool does. Replace it, with its schema and its description below.
fn say(text: &str) -> String {
    format!("__NAME__ says: {text}")
}

#[derive(Default)]
pub struct Provider;

fn answer(text: String, is_error: bool) -> Response<InvokeToolResponse> {
    let part = Part { content: Some(Content::Text(text)), ..Part::default() };
    Response::new(InvokeToolResponse { parts: vec![part], is_error, ..InvokeToolResponse::default() })
}

#[tonic::async_trait]
impl Tools for Provider {
    async fn list_tools(&self, _: Request<ListToolsRequest>) -> Result<Response<ListToolsResponse>, Status> {
        let schema = json!({
            "type": "object",
            "properties": { "text": { "type": "string", "description": "What to say" } },
            "required": ["text"],
        });
        let definition = ToolDefinition {
            name: NAME.into(),
            description: "Says a text".into(),
            parameters: schema.to_string(),
            ..ToolDefinition::default()
        };
        // Whether a crash may repeat a call, and what the tool may do, for policies: see tools.proto.
        let tool = Tool { definition: Some(definition), on_interrupt: OnInterrupt::Retry.into(), ..Tool::default() };
        Ok(Response::new(ListToolsResponse { tools: vec![tool], ..ListToolsResponse::default() }))
    }

    async fn invoke_tool(&self, request: Request<InvokeToolRequest>) -> Result<Response<InvokeToolResponse>, Status> {
        let request = request.into_inner();
        // What the model gets wrong is an answer to the model: it reads it, and does better.
        if request.name != NAME {
            return Ok(answer(format!("there is no tool {:?}; there is: {NAME}", request.name), true));
        }
        let arguments: Value = match serde_json::from_str(&request.arguments) {
            Ok(arguments) => arguments,
            Err(error) => return Ok(answer(format!("the arguments are no JSON: {error}"), true)),
        };
        match arguments["text"].as_str() {
            Some(text) => Ok(answer(say(text), false)),
            None => Ok(answer("the arguments must be an object with `text`, a string".into(), true)),
        }
    }

    async fn list_tool_groups(&self, _: Request<ListToolGroupsRequest>) -> Result<Response<ListToolGroupsResponse>, Status> {
        Err(Status::unimplemented("there are no groups here"))
    }

    async fn register_tool_group(&self, _: Request<RegisterToolGroupRequest>) -> Result<Response<ToolGroup>, Status> {
        Err(Status::unimplemented("there are no groups here"))
    }

    async fn unregister_tool_group(&self, _: Request<UnregisterToolGroupRequest>) -> Result<Response<UnregisterToolGroupResponse>, Status> {
        Err(Status::unimplemented("there are no groups here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_is_told() {
        assert!(say("hello").ends_with("hello"));
    }
}
