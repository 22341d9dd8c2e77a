//! A whole answer.

use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_proto::v1::{ChatChoice, ChatResponse, FinishReason, Message, ToolCall, part::Content};

use crate::openai::{FINGERPRINT, logprobs::ChatLogprobs, new_id, now, usage::Usage};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChatCompletion")]
pub(crate) struct Completion {
    id: String,
    object: &'static str,
    /// Seconds since the epoch.
    created: i64,
    model: String,
    system_fingerprint: &'static str,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChatChoice")]
struct Choice {
    index: usize,
    message: Answer,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize, JsonSchema)]
struct Answer {
    role: &'static str,
    /// Null where the model only called tools.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<AnswerToolCall>,
}

#[derive(Serialize, JsonSchema)]
struct AnswerToolCall {
    id: String,
    r#type: &'static str,
    function: AnswerFunction,
}

#[derive(Serialize, JsonSchema)]
struct AnswerFunction {
    name: String,
    /// A JSON object, as the model wrote it.
    arguments: String,
}

impl Completion {
    pub(super) fn new(response: ChatResponse, model: String) -> Self {
        Self {
            id: new_id("chatcmpl"),
            object: "chat.completion",
            created: now(),
            model,
            system_fingerprint: FINGERPRINT,
            choices: response.choices.into_iter().enumerate().map(Choice::new).collect(),
            usage: Usage::from(&response.usage.unwrap_or_default()),
        }
    }
}

impl Choice {
    fn new((index, choice): (usize, ChatChoice)) -> Self {
        let finish_reason = finish(choice.finish_reason());
        let message = Answer::from(choice.message.unwrap_or_default());
        Self { index, message, logprobs: ChatLogprobs::new(choice.logprobs), finish_reason }
    }
}

impl From<Message> for Answer {
    fn from(message: Message) -> Self {
        let mut answer = Self { role: "assistant", content: None, refusal: None, reasoning_content: None, tool_calls: Vec::new() };
        for part in message.parts {
            match part.content {
                Some(Content::Text(text)) => join(&mut answer.content, text),
                Some(Content::Refusal(text)) => join(&mut answer.refusal, text),
                Some(Content::Reasoning(text)) => join(&mut answer.reasoning_content, text),
                Some(Content::ToolCall(call)) => answer.tool_calls.push(call.into()),
                Some(Content::Image(_) | Content::ToolResult(_)) | None => {}
            }
        }
        // A model that said nothing at all said the empty text.
        if answer.tool_calls.is_empty() && answer.refusal.is_none() {
            answer.content.get_or_insert_default();
        }
        answer
    }
}

fn join(all: &mut Option<String>, more: String) {
    match all {
        Some(all) => all.push_str(&more),
        None => *all = Some(more),
    }
}

impl From<ToolCall> for AnswerToolCall {
    fn from(call: ToolCall) -> Self {
        Self { id: call.id, r#type: "function", function: AnswerFunction { name: call.name, arguments: call.arguments } }
    }
}

/// None while it goes on.
pub(crate) fn finish(reason: FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Unspecified => None,
        FinishReason::Stop => Some("stop"),
        FinishReason::Length => Some("length"),
        FinishReason::ToolCalls => Some("tool_calls"),
        FinishReason::ContentFilter => Some("content_filter"),
    }
}
