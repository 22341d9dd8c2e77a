//! Prompts and answers as span attributes: only where the manifest asks for them.

use serde_json::{Value, json};

use llama_stack_proto::v1::{ChatChoice, FinishReason, Message, Part, part::Content};

/// Bytes of one attribute. So many spans go in one message that all of it is within what collectors take: else all would be lost.
pub(crate) const LONGEST: usize = 64 << 10;

/// The beginning of what is too long, so no JSON any more: it ends with `…`.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// Messages in the form of `gen_ai.input.messages`.
pub(super) fn messages(messages: &[Message]) -> String {
    bounded(Value::from(messages.iter().map(message).collect::<Vec<_>>()).to_string())
}

/// Answers in the form of `gen_ai.output.messages`.
pub(super) fn answers(choices: &[ChatChoice]) -> String {
    let answers = choices.iter().filter_map(|choice| {
        let mut answer = message(choice.message.as_ref()?);
        answer["finish_reason"] = finish(choice.finish_reason()).into();
        Some(answer)
    });
    bounded(Value::from(answers.collect::<Vec<_>>()).to_string())
}

/// What a tool brought, as `gen_ai.tool.call.result`.
pub(super) fn result(parts: &[Part]) -> String {
    bounded(Value::from(contents(parts)).to_string())
}

/// As the schema of answers writes it; spans have the reasons in the API's words.
fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::ToolCalls => "tool_call",
        other => super::generation::word(other),
    }
}

fn message(message: &Message) -> Value {
    json!({ "role": message.role().provenance(), "parts": contents(&message.parts) })
}

fn contents(parts: &[Part]) -> Vec<Value> {
    parts.iter().filter_map(|part| part.content.as_ref()).map(part).collect()
}

/// An object, as conventions want it, where the model wrote one.
fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn part(content: &Content) -> Value {
    match content {
        Content::Text(text) | Content::Refusal(text) => json!({ "type": "text", "content": text }),
        Content::Reasoning(text) => json!({ "type": "reasoning", "content": text }),
        Content::Image(image) => json!({ "type": "image", "modality": "image", "mime_type": image.media_type }),
        Content::ToolCall(call) => {
            json!({ "type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments(&call.arguments) })
        }
        Content::ToolResult(result) => json!({ "type": "tool_call_response", "id": result.call_id, "response": result.joined_text() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_result_does_not_take_the_place_of_a_batch() {
        let large = result(&[Part { content: Some(Content::Text("é".repeat(8 << 20))), ..Part::default() }]);
        assert!(large.len() <= LONGEST && large.len() > LONGEST - 8 && large.ends_with("é…"), "{} bytes", large.len());
        let small = result(&[Part { content: Some(Content::Text("é".into())), ..Part::default() }]);
        assert_eq!(small, r#"[{"type":"text","content":"é"}]"#);
    }
}
