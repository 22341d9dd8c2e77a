//! Prompts and answers as span attributes: only where the manifest asks for them.

use serde_json::{Value, json};

use llama_stack_proto::v1::{Message, part::Content};

/// Messages in the form of `gen_ai.input.messages`.
pub(super) fn messages(messages: &[Message]) -> String {
    Value::from(messages.iter().map(|message| json!({ "role": message.role().provenance(), "parts": parts(message) })).collect::<Vec<_>>())
        .to_string()
}

fn parts(message: &Message) -> Vec<Value> {
    message.parts.iter().filter_map(|part| part.content.as_ref()).map(part).collect()
}

fn part(content: &Content) -> Value {
    match content {
        Content::Text(text) | Content::Refusal(text) => json!({ "type": "text", "content": text }),
        Content::Reasoning(text) => json!({ "type": "reasoning", "content": text }),
        Content::Image(image) => json!({ "type": "image", "media_type": image.media_type }),
        Content::ToolCall(call) => json!({ "type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments }),
        Content::ToolResult(result) => json!({ "type": "tool_call_response", "id": result.call_id, "response": result.joined_text() }),
    }
}
