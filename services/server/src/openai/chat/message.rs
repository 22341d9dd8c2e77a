//! Messages as this API writes them.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use llama_stack_core::{Context, Error, Result};
use llama_stack_proto::v1::{Image, Message, Part, Role, ToolCall, ToolResult, image::Source, part::Content};

use crate::{
    http::AppState,
    openai::{input_files, one_or_many::TextOr},
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct RequestMessage {
    role: RequestRole,
    content: Option<TextOr<ContentPart>>,
    name: Option<String>,
    /// Of the assistant.
    refusal: Option<String>,
    /// Of the assistant, as vLLM and DeepSeek write it.
    reasoning_content: Option<String>,
    /// Of the assistant.
    tool_calls: Option<Vec<RequestToolCall>>,
    /// Of a tool: the call that it answers.
    tool_call_id: Option<String>,
    #[schemars(skip)]
    function_call: Option<Value>,
    #[schemars(skip)]
    audio: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RequestRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// `text`, `image_url`, `file`, or, of the assistant, `refusal`.
#[derive(Debug, Deserialize, JsonSchema)]
struct ContentPart {
    r#type: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
    #[schemars(with = "Option<InputFile>")]
    file: Option<Value>,
    refusal: Option<String>,
}

/// By its id, or its content.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is read as what a response is given, and stands here for its schema")]
struct InputFile {
    /// An uploaded file.
    file_id: Option<String>,
    /// Base64, or a data URL of it.
    file_data: Option<String>,
    filename: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ImageUrl {
    /// http(s) or data URL.
    url: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct RequestToolCall {
    id: String,
    r#type: Option<String>,
    function: RequestFunction,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct RequestFunction {
    name: String,
    /// A JSON object, as text.
    arguments: String,
}

impl RequestMessage {
    /// Puts what the user's files say in the place of the files.
    pub(super) async fn read_files(&mut self, state: &AppState, cx: &Context, path: &str, room: &mut input_files::Room) -> Result<()> {
        let Some(TextOr::List(parts)) = &mut self.content else { return Ok(()) };
        if self.role != RequestRole::User {
            return Ok(());
        }
        for (index, part) in parts.iter_mut().enumerate().filter(|(_, part)| part.r#type == "file") {
            let field = format!("{path}.content[{index}].file");
            let file = part.file.take().unwrap_or_default();
            part.text = Some(input_files::of_chat(state, cx, &field, &file, room).await?);
            part.r#type = "text".into();
        }
        Ok(())
    }

    /// `names`: call id to tool name, of the calls so far.
    pub(crate) fn into_proto(self, index: usize, names: &mut HashMap<String, String>) -> Result<Message> {
        let path = format!("messages[{index}]");
        for (field, there) in [("function_call", self.function_call.is_some()), ("audio", self.audio.is_some())] {
            if there {
                return Err(unsupported(&format!("{path}.{field}")));
            }
        }
        let role = match self.role {
            RequestRole::System | RequestRole::Developer => Role::System,
            RequestRole::User => Role::User,
            RequestRole::Assistant => Role::Assistant,
            RequestRole::Tool => Role::Tool,
        };
        if role != Role::Assistant && self.content.is_none() {
            let field = format!("{path}.content");
            return Err(Error::invalid(&field, format!("{field}: missing field")).with_reason("missing_field"));
        }
        let mut parts = Vec::new();
        parts.extend(self.reasoning_content.filter(|text| !text.is_empty()).map(|text| Part::new(Content::Reasoning(text))));
        parts.extend(content(self.content, role, &path)?);
        parts.extend(self.refusal.map(|text| Part::new(Content::Refusal(text))));
        match role {
            Role::Tool => {
                let field = format!("{path}.tool_call_id");
                let call_id = self
                    .tool_call_id
                    .ok_or_else(|| Error::invalid(&field, format!("{field}: missing field")).with_reason("missing_field"))?;
                let name = names.get(&call_id).cloned().unwrap_or_default();
                let label = format!("tool:{name}");
                let parts = parts.into_iter().map(|part| part.with_provenance(&label)).collect();
                return Ok(Message::tool(vec![ToolResult { call_id, name, parts, is_error: false, ..Default::default() }]));
            }
            Role::Assistant => {
                for (call, entry) in self.tool_calls.into_iter().flatten().enumerate() {
                    parts.push(entry.into_proto(&format!("{path}.tool_calls[{call}]"), names)?.into());
                }
            }
            _ if self.tool_calls.is_some() => {
                let field = format!("{path}.tool_calls");
                return Err(Error::invalid(&field, format!("{field}: only assistant messages have tool calls")));
            }
            _ => {}
        }
        Ok(Message { name: self.name.unwrap_or_default(), ..Message::new(role, parts) })
    }
}

impl RequestToolCall {
    fn into_proto(self, path: &str, names: &mut HashMap<String, String>) -> Result<ToolCall> {
        if self.r#type.is_some_and(|kind| kind != "function") {
            return Err(unsupported(&format!("{path}.type")));
        }
        names.insert(self.id.clone(), self.function.name.clone());
        Ok(ToolCall::new(self.id, self.function.name, self.function.arguments))
    }
}

/// An empty text is no part.
fn content(content: Option<TextOr<ContentPart>>, role: Role, path: &str) -> Result<Vec<Part>> {
    match content {
        None => Ok(Vec::new()),
        Some(TextOr::Text(text)) if text.is_empty() && role == Role::Assistant => Ok(Vec::new()),
        Some(TextOr::Text(text)) => Ok(vec![Part::text(text)]),
        Some(TextOr::List(list)) => {
            list.into_iter().enumerate().map(|(index, part)| part.into_proto(role, &format!("{path}.content[{index}]"))).collect()
        }
    }
}

impl ContentPart {
    fn into_proto(self, role: Role, path: &str) -> Result<Part> {
        let missing =
            |field: &str| Error::invalid(format!("{path}.{field}"), format!("{path}.{field}: missing field")).with_reason("missing_field");
        match (self.r#type.as_str(), role) {
            ("text", _) => self.text.map(Part::text).ok_or_else(|| missing("text")),
            ("image_url", Role::User | Role::Tool) => {
                let url = self.image_url.ok_or_else(|| missing("image_url"))?.url;
                Ok(Part::image(Image { source: Some(Source::Url(url)), media_type: String::new() }))
            }
            ("refusal", Role::Assistant) => self.refusal.map(|text| Part::new(Content::Refusal(text))).ok_or_else(|| missing("refusal")),
            _ => Err(unsupported(&format!("{path}.type")).context(format!("{:?} in a message of role {}", self.r#type, role.provenance()))),
        }
    }
}

fn unsupported(path: &str) -> Error {
    Error::invalid(path, format!("{path} is not supported")).with_reason("unsupported_parameter")
}
