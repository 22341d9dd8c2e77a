//! Items: what a Response reads and writes, and the messages that they are.

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{Image, Message, Part, Role, ToolCall, ToolResult, image::Source, part::Content};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A text, or a list of items.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Items(Vec<Value>),
}

/// Something in `output`, and in `input_items`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    Message { id: String, status: Status, role: &'static str, content: Vec<ContentPart> },
    FunctionCall { id: String, status: Status, call_id: String, name: String, arguments: String },
    FunctionCallOutput { id: String, status: Status, call_id: String, output: String },
    Reasoning { id: String, summary: Vec<Value>, content: Vec<ContentPart>, status: Status },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentPart {
    InputText { text: String },
    InputImage { image_url: String, detail: &'static str },
    OutputText { text: String, annotations: Vec<Value>, logprobs: Vec<Value> },
    Refusal { refusal: String },
    ReasoningText { text: String },
}

impl Item {
    pub(crate) fn id(&self) -> &str {
        match self {
            Item::Message { id, .. } | Item::FunctionCall { id, .. } | Item::FunctionCallOutput { id, .. } | Item::Reasoning { id, .. } => {
                id
            }
        }
    }
}

/// The call as an item; `n` is its place among the items of its step or turn.
pub(crate) fn function_call(stem: &str, n: usize, call: &ToolCall, status: Status) -> Item {
    Item::FunctionCall {
        id: format!("fc_{stem}{n:02}"),
        status,
        call_id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    }
}

pub(crate) fn logprob(token: &llama_stack_proto::v1::TokenLogprob) -> Value {
    let top: Vec<Value> = token.top.iter().map(|top| json!({ "token": top.token, "logprob": top.logprob, "bytes": top.bytes })).collect();
    json!({ "token": token.token, "logprob": token.logprob, "bytes": token.bytes, "top_logprobs": top })
}

/// The items that a turn was given.
pub(crate) fn input(turn_id: &str, messages: &[Message]) -> Vec<Item> {
    let stem = turn_id.strip_prefix("turn_").unwrap_or(turn_id);
    let mut items = Vec::new();
    for message in messages {
        let mut content = Vec::new();
        for part in &message.parts {
            let n = items.len();
            match &part.content {
                Some(Content::Text(text)) if message.role() == Role::Assistant => {
                    content.push(ContentPart::OutputText { text: text.clone(), annotations: Vec::new(), logprobs: Vec::new() });
                }
                Some(Content::Text(text)) => content.push(ContentPart::InputText { text: text.clone() }),
                Some(Content::Image(image)) => content.push(ContentPart::InputImage { image_url: image_url(image), detail: "auto" }),
                Some(Content::Refusal(refusal)) => content.push(ContentPart::Refusal { refusal: refusal.clone() }),
                Some(Content::ToolCall(call)) => items.push(function_call(stem, n, call, Status::Completed)),
                Some(Content::ToolResult(result)) => items.push(Item::FunctionCallOutput {
                    id: format!("fco_{stem}{n:02}"),
                    status: Status::Completed,
                    call_id: result.call_id.clone(),
                    output: result.joined_text(),
                }),
                Some(Content::Reasoning(_)) | None => {}
            }
        }
        if !content.is_empty() {
            let id = format!("msg_{stem}{:02}", items.len());
            items.push(Item::Message { id, status: Status::Completed, role: role_name(message.role()), content });
        }
    }
    items
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::User | Role::Unspecified => "user",
    }
}

fn image_url(image: &Image) -> String {
    match &image.source {
        Some(Source::Url(url)) => url.clone(),
        Some(Source::Data(data)) => {
            use base64::Engine as _;
            format!("data:{};base64,{}", image.media_type, base64::engine::general_purpose::STANDARD.encode(data))
        }
        None => String::new(),
    }
}

/// The messages that an input is.
///
/// Calls in a row are one assistant message, outputs in a row one tool message: that is how models have learned them.
///
/// # Errors
/// `InvalidArgument` with the item's place · `Unimplemented` for items of tools that this stack does not have.
pub(crate) fn messages(input: Input) -> Result<Vec<Message>> {
    let items = match input {
        Input::Text(text) => return Ok(vec![Message::user(text)]),
        Input::Items(items) => items,
    };
    let mut messages: Vec<Message> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let field = format!("input[{index}]");
        let kind = item.get("type").and_then(Value::as_str).unwrap_or("message");
        let (role, parts) = match kind {
            "message" => message(&field, item)?,
            "function_call" => {
                let call = ToolCall::new(text(&field, item, "call_id")?, text(&field, item, "name")?, text(&field, item, "arguments")?);
                (Role::Assistant, vec![call.into()])
            }
            "function_call_output" => (Role::Tool, vec![call_output(&field, item, &messages)?.into()]),
            "reasoning" => (Role::Assistant, reasoning(item)),
            other => {
                let message = format!("items of type {other:?} are not supported yet");
                return Err(Error::new(Code::Unimplemented, message).with_field(format!("{field}.type")));
            }
        };
        match messages.last_mut() {
            Some(last) if kind != "message" && last.role() == role => last.parts.extend(parts),
            _ if parts.is_empty() => {}
            _ => messages.push(Message::new(role, parts)),
        }
    }
    if messages.is_empty() {
        return Err(Error::invalid("input", "input must hold at least one item"));
    }
    Ok(messages)
}

fn message(field: &str, item: &Value) -> Result<(Role, Vec<Part>)> {
    let role = match text(field, item, "role")?.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" | "developer" => Role::System,
        other => {
            let message = format!("role {other:?} must be user, assistant, system or developer");
            return Err(Error::invalid(format!("{field}.role"), message));
        }
    };
    let parts = match item.get("content") {
        Some(Value::String(text)) => vec![Part::text(text.clone())],
        Some(Value::Array(parts)) => {
            let place = |index: usize| format!("{field}.content[{index}]");
            parts.iter().enumerate().map(|(index, part)| content(&place(index), part)).collect::<Result<_>>()?
        }
        _ => return Err(Error::invalid(format!("{field}.content"), "content must be a text or a list of parts")),
    };
    Ok((role, parts))
}

fn content(field: &str, part: &Value) -> Result<Part> {
    match part.get("type").and_then(Value::as_str) {
        Some("input_text" | "output_text" | "text") => Ok(Part::text(text(field, part, "text")?)),
        Some("refusal") => Ok(Part::new(Content::Refusal(text(field, part, "refusal")?))),
        Some("input_image") => {
            Ok(Part::image(Image { source: Some(Source::Url(text(field, part, "image_url")?)), media_type: String::new() }))
        }
        Some(other) => {
            let message = format!("content of type {other:?} is not supported; use input_text or input_image");
            Err(Error::new(Code::Unimplemented, message).with_field(format!("{field}.type")))
        }
        None => Err(Error::invalid(format!("{field}.type"), "a content part needs a type, for example \"input_text\"")),
    }
}

/// The name of the tool is looked up among the calls before it; a call of an earlier response is the runtime's to find.
fn call_output(field: &str, item: &Value, before: &[Message]) -> Result<ToolResult> {
    let call_id = text(field, item, "call_id")?;
    let name = before.iter().flat_map(Message::tool_calls).find(|call| call.id == call_id).map(|call| call.name.clone());
    let output = match item.get("output") {
        Some(Value::String(text)) => vec![Part::text(text.clone())],
        Some(Value::Array(parts)) => {
            let place = |index: usize| format!("{field}.output[{index}]");
            parts.iter().enumerate().map(|(index, part)| content(&place(index), part)).collect::<Result<_>>()?
        }
        _ => return Err(Error::invalid(format!("{field}.output"), "output must be a text or a list of parts")),
    };
    Ok(ToolResult { call_id, name: name.unwrap_or_default(), parts: output, is_error: false })
}

fn reasoning(item: &Value) -> Vec<Part> {
    let content = item.get("content").and_then(Value::as_array).into_iter().flatten();
    let texts = content.filter_map(|part| part.get("text").and_then(Value::as_str));
    texts.map(|text| Part::new(Content::Reasoning(text.to_owned()))).collect()
}

fn text(field: &str, object: &Value, key: &str) -> Result<String> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Error::invalid(format!("{field}.{key}"), format!("{key} must be a text"))),
        None => Err(Error::invalid(format!("{field}.{key}"), format!("{key} is missing"))),
    }
}
