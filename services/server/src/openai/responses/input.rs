//! What a client gives a Response: items, read as messages and decisions.

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{ApprovalDecision, Citation, Image, Message, Part, Role, ToolCall, ToolResult, image::Source, part::Content};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{compaction, namespaces, steps::FILE_SEARCH};
use crate::openai::one_or_many::TextOr;

/// A text, or a list of items.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Items(Vec<Value>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match TextOr::deserialize(deserializer)? {
            TextOr::Text(text) => Self::Text(text),
            TextOr::List(items) => Self::Items(items),
        })
    }
}

/// What items come to.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) messages: Vec<Message>,
    /// On calls that the turn before waits for.
    pub(crate) decisions: Vec<ApprovalDecision>,
}

/// Reads an input.
///
/// Calls in a row are one assistant message, outputs in a row one tool message, thinking belongs to what it led to, and what
/// was said after calls, before their outputs, to those calls: that is how models have learned them. Of the items that only tell what a stack did, those that hold no words of the
/// conversation (lists of tools, requests for approval, searches without results) are passed over.
///
/// # Errors
/// `InvalidArgument` with the item's place · `Unimplemented` for items of tools that this stack does not have.
pub(crate) fn read(input: Input) -> Result<Given> {
    match input {
        Input::Text(text) => Ok(Given { messages: vec![Message::user(text)], decisions: Vec::new() }),
        Input::Items(items) => read_items("input", &items),
    }
}

/// As [`read`]; `field` is what the list is called in errors.
pub(crate) fn read_items(field: &str, items: &[Value]) -> Result<Given> {
    let mut given = Given::default();
    for (index, item) in items.iter().enumerate() {
        given.item(&format!("{field}[{index}]"), item)?;
    }
    if given.messages.is_empty() && given.decisions.is_empty() {
        return Err(Error::invalid(field, format!("{field} must hold at least one item")));
    }
    Ok(given)
}

impl Given {
    fn item(&mut self, field: &str, item: &Value) -> Result<()> {
        match kind(item) {
            "message" => self.message(message(field, item)?),
            "function_call" => self.push(Role::Assistant, vec![call(field, item, "call_id")?.into()]),
            "function_call_output" => {
                let result = call_output(field, item, &self.messages)?;
                self.push(Role::Tool, vec![result.into()]);
            }
            "reasoning" => self.push(Role::Assistant, reasoning(item)),
            "mcp_call" => {
                let call = call(field, item, "id")?;
                let (text, is_error) = mcp_output(item);
                let result = ToolResult {
                    call_id: call.id.clone(),
                    name: call.name.clone(),
                    parts: vec![Part::text(text)],
                    is_error,
                    ..Default::default()
                };
                self.push(Role::Assistant, vec![call.into()]);
                self.push(Role::Tool, vec![result.into()]);
            }
            "mcp_approval_response" => self.decisions.push(decision(field, item)?),
            "compaction" => self.messages.extend(compaction::read(field, &text(field, item, "encrypted_content")?)?),
            "file_search_call" => self.file_search(field, item)?,
            "mcp_list_tools" | "mcp_approval_request" | "web_search_call" => {}
            other => {
                let message = format!("items of type {other:?} are not supported yet");
                return Err(Error::new(Code::Unimplemented, message).with_field(format!("{field}.type")));
            }
        }
        Ok(())
    }

    /// A search with what it found is the call and its result; one without holds no words of the conversation.
    fn file_search(&mut self, field: &str, item: &Value) -> Result<()> {
        let found = item.get("results").and_then(Value::as_array).filter(|found| !found.is_empty());
        let Some(found) = found else { return Ok(()) };
        let queries = json!({ "queries": item.get("queries") });
        let call = ToolCall::new(text(field, item, "id")?, FILE_SEARCH, queries.to_string());
        let passage = |found: &Value| {
            let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
            let passage = format!("{}\n{}\n\n", text("filename"), text("text"));
            Part::text(passage).with_provenance(format!("retrieved:input/{}", text("file_id")))
        };
        let parts = found.iter().map(passage).collect();
        let result = ToolResult { call_id: call.id.clone(), name: call.name.clone(), parts, ..ToolResult::default() };
        self.push(Role::Assistant, vec![call.into()]);
        self.push(Role::Tool, vec![result.into()]);
        Ok(())
    }

    fn message(&mut self, (role, parts): (Role, Vec<Part>)) {
        let thought = |message: &Message| message.parts.iter().all(|part| matches!(part.content, Some(Content::Reasoning(_))));
        let calls = |message: &Message| message.tool_calls().next().is_some();
        match self.messages.last_mut() {
            Some(last) if role == Role::Assistant && last.role() == role && (thought(last) || calls(last)) => last.parts.extend(parts),
            _ => self.messages.push(Message::new(role, parts)),
        }
    }

    fn push(&mut self, role: Role, parts: Vec<Part>) {
        match self.messages.last_mut() {
            Some(last) if last.role() == role => last.parts.extend(parts),
            _ if parts.is_empty() => {}
            _ => self.messages.push(Message::new(role, parts)),
        }
    }
}

/// A message need not say that it is one.
pub(crate) fn kind(item: &Value) -> &str {
    item.get("type").and_then(Value::as_str).unwrap_or("message")
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
    Ok((role, parts(&format!("{field}.content"), item.get("content"))?))
}

/// A text, or a list of parts.
fn parts(field: &str, content: Option<&Value>) -> Result<Vec<Part>> {
    match content {
        Some(Value::String(text)) => Ok(vec![Part::text(text.clone())]),
        Some(Value::Array(parts)) => parts.iter().enumerate().map(|(index, part)| part_of(&format!("{field}[{index}]"), part)).collect(),
        _ => Err(Error::invalid(field, format!("{field} must be a text or a list of parts"))),
    }
}

fn part_of(field: &str, part: &Value) -> Result<Part> {
    match part.get("type").and_then(Value::as_str) {
        Some("input_text" | "output_text" | "text") => {
            let text = text(field, part, "text")?;
            let citations = part.get("annotations").and_then(Value::as_array).into_iter().flatten();
            let citations = citations.filter_map(|annotation| citation(&text, annotation)).collect();
            // Not OpenAI's: where a quoted text comes from. What may be said of it, the runtime knows.
            let provenance = part.get("provenance").and_then(Value::as_str).unwrap_or_default().to_owned();
            Ok(Part { citations, provenance, ..Part::text(text) })
        }
        Some("refusal") => Ok(Part::new(Content::Refusal(text(field, part, "refusal")?))),
        Some("input_image") => {
            Ok(Part::image(Image { source: Some(Source::Url(text(field, part, "image_url")?)), media_type: String::new() }))
        }
        Some(other) => {
            let message = format!("content of type {other:?} is not supported yet; use input_text or input_image");
            Err(Error::new(Code::Unimplemented, message).with_field(format!("{field}.type")))
        }
        None => Err(Error::invalid(format!("{field}.type"), "a content part needs a type, for example \"input_text\"")),
    }
}

/// What an answer that comes back rested on; other annotations say nothing here.
fn citation(text: &str, annotation: &Value) -> Option<Citation> {
    let said = |key: &str| annotation.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // The API counts characters.
    let place = |key: &str| {
        let index = usize::try_from(annotation.get(key)?.as_u64()?).ok()?;
        u32::try_from(text.char_indices().nth(index).map_or(text.len(), |(place, _)| place)).ok()
    };
    match annotation.get("type").and_then(Value::as_str) {
        Some("url_citation") => {
            let (start, end) = (place("start_index")?, place("end_index")?);
            Some(Citation { start, end: end.max(start), url: said("url"), title: said("title"), ..Citation::default() })
        }
        Some("file_citation") => {
            let place = place("index")?;
            let page = annotation.get("page").and_then(Value::as_u64).and_then(|page| u32::try_from(page).ok());
            Some(Citation {
                start: place,
                end: place,
                document_id: said("file_id"),
                file_id: said("file_id"),
                filename: said("filename"),
                page: page.unwrap_or_default(),
                quote: said("quote"),
                ..Citation::default()
            })
        }
        _ => None,
    }
}

fn call(field: &str, item: &Value, id: &str) -> Result<ToolCall> {
    let name = namespaces::told(item, text(field, item, "name")?);
    Ok(ToolCall::new(text(field, item, id)?, name, text(field, item, "arguments")?))
}

/// The name of the tool is looked up among the calls before it; a call of an earlier response is the runtime's to find.
fn call_output(field: &str, item: &Value, before: &[Message]) -> Result<ToolResult> {
    let call_id = text(field, item, "call_id")?;
    let name = before.iter().flat_map(Message::tool_calls).find(|call| call.id == call_id).map(|call| call.name.clone());
    let parts = parts(&format!("{field}.output"), item.get("output"))?;
    Ok(ToolResult { call_id, name: name.unwrap_or_default(), parts, is_error: false, ..Default::default() })
}

/// What a call at an MCP server came to, as the model was told, and whether it failed.
fn mcp_output(item: &Value) -> (String, bool) {
    match (item.get("output"), item.get("error")) {
        (Some(Value::String(output)), _) => (output.clone(), false),
        (_, Some(Value::String(error))) => (error.clone(), true),
        (_, Some(error @ Value::Object(_))) => {
            let texts = error.get("content").and_then(Value::as_array).into_iter().flatten();
            let texts: Vec<&str> = texts.filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            let message = error.get("message").and_then(Value::as_str).map(str::to_owned);
            (if texts.is_empty() { message.unwrap_or_else(|| error.to_string()) } else { texts.concat() }, true)
        }
        _ => ("this call has no result".to_owned(), true),
    }
}

fn decision(field: &str, item: &Value) -> Result<ApprovalDecision> {
    let approve = item.get("approve").and_then(Value::as_bool);
    let approve = approve.ok_or_else(|| Error::invalid(format!("{field}.approve"), "approve must be true or false"))?;
    let reason = item.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(ApprovalDecision { approval_request_id: text(field, item, "approval_request_id")?, approve, reason })
}

fn reasoning(item: &Value) -> Vec<Part> {
    let content = item.get("content").and_then(Value::as_array).into_iter().flatten();
    let texts = content.filter_map(|part| part.get("text").and_then(Value::as_str));
    texts.map(|text| Part::new(Content::Reasoning(text.to_owned()))).collect()
}

pub(crate) fn text(field: &str, object: &Value, key: &str) -> Result<String> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Error::invalid(format!("{field}.{key}"), format!("{key} must be a text"))),
        None => Err(Error::invalid(format!("{field}.{key}"), format!("{key} is missing"))),
    }
}
