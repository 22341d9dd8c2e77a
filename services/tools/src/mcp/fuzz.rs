//! A door for fuzzers: what either side of the Model Context Protocol may send.

use llama_stack_proto::v1::{InvokeToolResponse, Tool};
use rmcp::model::{CallToolResult, ClientJsonRpcMessage, ListToolsResult, ServerJsonRpcMessage};

use super::{
    content,
    listing::{Listed, Naming},
};

/// What was understood of one message.
#[derive(Debug, Default)]
pub struct Read {
    /// It is a message that a server may be sent.
    pub asked: bool,
    /// It is a message that a client may be sent.
    pub answered: bool,
    /// The tools of a list.
    pub tools: Vec<Tool>,
    /// The result of a call.
    pub result: Option<InvokeToolResponse>,
}

/// Reads `message` as each of what it may be. Lists and results are taken bare, and out of a response.
pub fn message(message: &[u8]) -> Read {
    let value: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    let payload = value.get("result").unwrap_or(&value);
    let naming = Naming { provider: "fuzzed".into(), prefix: String::new(), allowed: None };
    let listed = serde_json::from_value::<ListToolsResult>(payload.clone()).map(|list| Listed::new(&naming, list.tools).tools);
    let result = serde_json::from_value::<CallToolResult>(payload.clone()).map(|result| content::response("tool", result));
    Read {
        asked: serde_json::from_slice::<ClientJsonRpcMessage>(message).is_ok(),
        answered: serde_json::from_slice::<ServerJsonRpcMessage>(message).is_ok(),
        tools: listed.unwrap_or_default(),
        result: result.ok(),
    }
}
