//! Messages as the chat API writes them.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer, ser::SerializeSeq};

use llama_stack_proto::v1::{Image, Message, Part, Role, ToolCall, ToolResult, image::Source, part::Content};

/// A message with several tool results becomes several messages.
pub(super) struct Messages<'a> {
    pub(super) messages: &'a [Message],
    /// With their names and refusals. Without, what was refused is what was said.
    pub(super) names: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    /// Null for an assistant message that holds nothing but calls; some servers refuse a message without this key.
    content: Option<WireContent<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    tool_call_id: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireContent<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<WirePart<'a>>),
}

impl WireContent<'_> {
    fn is_empty(&self) -> bool {
        matches!(self, WireContent::Text(text) if text.is_empty())
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for message in self.messages {
            match message.role() {
                Role::Tool => message.tool_results().try_for_each(|result| seq.serialize_element(&answer(result)))?,
                role => seq.serialize_element(&spoken(role, message, self.names))?,
            }
        }
        seq.end()
    }
}

fn spoken(role: Role, message: &Message, names: bool) -> WireMessage<'_> {
    let role = match role {
        Role::System => "system",
        Role::Assistant => "assistant",
        _ => "user",
    };
    let tool_calls: Vec<WireCall<'_>> = message.tool_calls().map(WireCall::from).collect();
    let mut refusal = message.parts.iter().find_map(|part| match &part.content {
        Some(Content::Refusal(text)) => Some(text.as_str()),
        _ => None,
    });
    let mut said = content(&message.parts);
    if !names
        && let Some(text) = refusal.take()
        && said.is_empty()
    {
        said = WireContent::Text(Cow::Borrowed(text));
    }
    let silent = said.is_empty() && (!tool_calls.is_empty() || refusal.is_some());
    let name = if names { &message.name } else { "" };
    WireMessage { role, content: (!silent).then_some(said), name, refusal, tool_calls, tool_call_id: "" }
}

fn answer(result: &ToolResult) -> WireMessage<'_> {
    let content = Some(content(&result.parts));
    WireMessage { role: "tool", content, name: "", refusal: None, tool_calls: Vec::new(), tool_call_id: &result.call_id }
}

/// One string where there is nothing but text, which every server and template understands; else parts.
fn content(parts: &[Part]) -> WireContent<'_> {
    let images = parts.iter().any(|part| matches!(part.content, Some(Content::Image(_))));
    if images {
        return WireContent::Parts(parts.iter().filter_map(wire_part).collect());
    }
    let mut texts = parts.iter().filter_map(Part::as_text);
    let first = texts.next().unwrap_or_default();
    WireContent::Text(texts.fold(Cow::Borrowed(first), |all, more| all + more))
}

fn wire_part(part: &Part) -> Option<WirePart<'_>> {
    match part.content.as_ref()? {
        Content::Text(text) => Some(WirePart::Text { text }),
        Content::Image(image) => Some(WirePart::ImageUrl { image_url: ImageUrl { url: url(image)? } }),
        _ => None,
    }
}

fn url(image: &Image) -> Option<Cow<'_, str>> {
    Some(match image.source.as_ref()? {
        Source::Url(url) => Cow::Borrowed(url),
        Source::Data(data) => Cow::Owned(format!("data:{};base64,{}", image.media_type, STANDARD.encode(data))),
    })
}

impl<'a> From<&'a ToolCall> for WireCall<'a> {
    fn from(call: &'a ToolCall) -> Self {
        // A call without arguments is written as an empty object: servers parse what a model once wrote.
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        Self { id: &call.id, kind: "function", function: WireFunction { name: &call.name, arguments } }
    }
}
