//! Messages and tools in the shape that chat templates read: OpenAI's, with arguments as objects.

use serde_json::{Map, Value, json};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Message, Part, Role, ToolCall, ToolDefinition, ToolResult, part::Content};

/// An array of messages; each tool result is a message of its own.
pub(super) fn messages(messages: &[Message]) -> Result<Value> {
    let mut out = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        match message.role() {
            Role::System => out.push(spoken("system", message, &path)?),
            Role::User => out.push(spoken("user", message, &path)?),
            Role::Assistant => out.push(assistant(message, &path)?),
            Role::Tool => {
                for (part, result) in message.tool_results().enumerate() {
                    out.push(tool_result(result, &format!("{path}.parts[{part}]"))?);
                }
            }
            Role::Unspecified => return Err(Error::invalid(format!("{path}.role"), "a message needs a role")),
        }
    }
    Ok(Value::Array(out))
}

/// An array of function tools.
pub(super) fn tools(tools: &[ToolDefinition]) -> Result<Value> {
    let tool = |(index, tool): (usize, &ToolDefinition)| {
        let parameters = match tool.parameters.trim() {
            "" => json!({ "type": "object", "properties": {} }),
            text => serde_json::from_str(text).map_err(|error| {
                let message = format!("the parameters of tool {:?} are not JSON: {error}", tool.name);
                Error::invalid(format!("tools[{index}].parameters"), message)
            })?,
        };
        Ok(json!({ "type": "function", "function": { "name": tool.name, "description": tool.description, "parameters": parameters } }))
    };
    tools.iter().enumerate().map(tool).collect()
}

fn spoken(role: &str, message: &Message, path: &str) -> Result<Value> {
    let mut out = Map::new();
    out.insert("role".into(), role.into());
    if !message.name.is_empty() {
        out.insert("name".into(), message.name.as_str().into());
    }
    out.insert("content".into(), text(&message.parts, path)?.into());
    Ok(Value::Object(out))
}

fn assistant(message: &Message, path: &str) -> Result<Value> {
    let mut out = spoken("assistant", message, path)?;
    let thought: String = message.parts.iter().filter_map(reasoning).collect();
    if !thought.is_empty() {
        out["reasoning_content"] = thought.into();
    }
    let calls: Vec<Value> = message.tool_calls().map(tool_call).collect();
    if !calls.is_empty() {
        out["tool_calls"] = calls.into();
    }
    Ok(out)
}

/// Templates write arguments by `tojson`, which would quote a string once more; one that is no object stays a string.
fn tool_call(call: &ToolCall) -> Value {
    let arguments = match call.arguments.trim() {
        "" => json!({}),
        text => serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| call.arguments.as_str().into()),
    };
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
}

fn tool_result(result: &ToolResult, path: &str) -> Result<Value> {
    let content = text(&result.parts, path)?;
    Ok(json!({ "role": "tool", "name": result.name, "tool_call_id": result.call_id, "content": content }))
}

/// What was said, refusals included: the text of all parts, joined.
fn text(parts: &[Part], path: &str) -> Result<String> {
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        match &part.content {
            Some(Content::Text(text) | Content::Refusal(text)) => out.push_str(text),
            Some(Content::Image(_)) => {
                let message = "this model reads text only: leave the image out or take a model that sees";
                return Err(Error::invalid(format!("{path}.parts[{index}]"), message).with_reason("images_not_supported"));
            }
            Some(Content::ToolCall(_) | Content::ToolResult(_) | Content::Reasoning(_)) | None => {}
        }
    }
    Ok(out)
}

fn reasoning(part: &Part) -> Option<&str> {
    match &part.content {
        Some(Content::Reasoning(text)) => Some(text),
        _ => None,
    }
}
