//! A conversation: roles, parts, and the pairing of calls with their results.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Image, Message, Part, Role, ToolResult, image::Source, part::Content};

pub(super) fn check(messages: &[Message]) -> Result<()> {
    if messages.is_empty() {
        return Err(Error::invalid("messages", "messages is empty; it must have at least 1 message"));
    }
    // Calls that wait for their result: id, and the message that made it.
    let mut open: Vec<(&str, usize)> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let role = role(index, message)?;
        if role != Role::Tool
            && let Some(call) = open.first()
        {
            return Err(unanswered(*call, &format!("before messages[{index}]")));
        }
        if message.parts.is_empty() && role != Role::Assistant {
            return Err(Error::invalid(
                format!("messages[{index}].parts"),
                format!("messages[{index}] has 0 parts; it must have at least 1"),
            ));
        }
        for (at, part) in message.parts.iter().enumerate() {
            let place = Place { message: index, part: at };
            match check_part(role, part, place)? {
                Some(Content::ToolCall(call)) => open.push((&call.id, index)),
                Some(Content::ToolResult(result)) => answer(&mut open, result, place)?,
                _ => {}
            }
        }
    }
    match open.first() {
        Some(call) => Err(unanswered(*call, "before the end")),
        None => Ok(()),
    }
}

/// Which part of which message: its path is written only when something is wrong with it.
#[derive(Clone, Copy)]
struct Place {
    message: usize,
    part: usize,
}

impl Place {
    fn wrong(self, field: &str, what: impl std::fmt::Display) -> Error {
        let path = format!("messages[{}].parts[{}]", self.message, self.part);
        let field = if field.is_empty() { path.clone() } else { format!("{path}.{field}") };
        Error::invalid(field, format!("{path} {what}"))
    }
}

fn role(index: usize, message: &Message) -> Result<Role> {
    match Role::try_from(message.role) {
        Ok(role) if role != Role::Unspecified => Ok(role),
        _ => {
            let message = format!("messages[{index}].role is {}; it must be system, user, assistant or tool", message.role);
            Err(Error::invalid(format!("messages[{index}].role"), message))
        }
    }
}

/// The part's content, if it may stand in a message of `role`.
fn check_part(role: Role, part: &Part, place: Place) -> Result<Option<&Content>> {
    let Some(content) = &part.content else { return Err(place.wrong("", "is empty; it must hold a content")) };
    let (allowed, what, right) = match content {
        Content::Text(_) => (role != Role::Tool, "a text", "tool messages hold tool results"),
        Content::Image(_) => (role == Role::User, "an image", "images belong to user messages and tool results"),
        Content::ToolCall(_) => (role == Role::Assistant, "a tool call", "tool calls belong to assistant messages"),
        Content::ToolResult(_) => (role == Role::Tool, "a tool result", "tool results belong to tool messages"),
        Content::Refusal(_) => (role == Role::Assistant, "a refusal", "refusals belong to assistant messages"),
        Content::Reasoning(_) => (role == Role::Assistant, "reasoning", "reasoning belongs to assistant messages"),
    };
    if !allowed {
        let role = role.as_str_name().trim_start_matches("ROLE_").to_lowercase();
        return Err(place.wrong("", format_args!("is {what} in a message of role {role}; {right}")));
    }
    match content {
        Content::Image(image) => check_image(image, place, "image")?,
        Content::ToolCall(call) if call.id.is_empty() => return Err(place.wrong("tool_call.id", "is a tool call without an id")),
        Content::ToolCall(call) if call.name.is_empty() => return Err(place.wrong("tool_call.name", "is a tool call without a name")),
        Content::ToolResult(result) => check_result(result, place)?,
        _ => {}
    }
    Ok(Some(content))
}

fn check_result(result: &ToolResult, place: Place) -> Result<()> {
    for (index, part) in result.parts.iter().enumerate() {
        let field = format!("tool_result.parts[{index}]");
        match &part.content {
            Some(Content::Text(_)) => {}
            Some(Content::Image(image)) => check_image(image, place, &field)?,
            _ => return Err(place.wrong(&field, format_args!("holds at {field} something that is neither text nor image"))),
        }
    }
    Ok(())
}

fn check_image(image: &Image, place: Place, field: &str) -> Result<()> {
    match &image.source {
        Some(Source::Url(url)) if ["http://", "https://", "data:"].iter().any(|scheme| url.starts_with(scheme)) => Ok(()),
        Some(Source::Url(_)) => Err(place.wrong(&format!("{field}.url"), "has an image whose url is neither http(s) nor data")),
        Some(Source::Data(data)) if data.is_empty() => Err(place.wrong(&format!("{field}.data"), "has an image of 0 bytes")),
        Some(Source::Data(_)) if image.media_type.is_empty() => {
            Err(place.wrong(&format!("{field}.media_type"), "has an image without a media_type; it must be for example image/png"))
        }
        Some(Source::Data(_)) => Ok(()),
        None => Err(place.wrong(field, "has an image with neither url nor data")),
    }
}

fn answer(open: &mut Vec<(&str, usize)>, result: &ToolResult, place: Place) -> Result<()> {
    match open.iter().position(|(id, _)| *id == result.call_id) {
        Some(found) => {
            open.remove(found);
            Ok(())
        }
        None => {
            let what = format!("answers the call {:?}, which no assistant message before it leaves open", result.call_id);
            Err(place.wrong("tool_result.call_id", what))
        }
    }
}

fn unanswered((id, message): (&str, usize), before: &str) -> Error {
    let what = format!("the call {id:?} of messages[{message}] has no result {before}; every call needs one in the tool messages after it");
    Error::invalid(format!("messages[{message}]"), what)
}
