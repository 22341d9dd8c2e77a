//! What a client says again that the history holds already.
//!
//! Some clients keep their history here, and send with each result of a tool all that they have sent since their user spoke: the
//! message, and the results before. The API takes that, and the result still comes last. Here results come first, next to their
//! calls; so a message that was repeated would be a new question after them, and the call would be made again.

use std::collections::HashSet;

use llama_stack_core::{Code, Context, Result};
use llama_stack_proto::v1::{GetTurnRequest, ListTurnsRequest, Message, Role, Turn};
use serde_json::Value;

use super::input::{kind, read_items};
use crate::http::AppState;

/// Takes out of `given` the results that the turns before were given, and, of what stands before a result that is awaited, their
/// messages word for word. Without a result that is new nothing is taken out: what is wrong then, the runtime says.
///
/// # Errors
/// Those of reading turns.
pub(super) async fn leave_out(state: &AppState, cx: &Context, given: &mut Vec<Value>, session_id: &str, parent_id: &str) -> Result<()> {
    let answers = answers(given);
    let Some(last) = answers.iter().rposition(|answers| *answers).filter(|last| *last > 0) else { return Ok(()) };
    let mut before = match before(state, cx, session_id, parent_id).await {
        // For who may not read the turns, nothing is left out.
        Err(error) if error.code() == Code::PermissionDenied => return Ok(()),
        before => before?,
    };
    let again: Vec<bool> = given[..=last].iter().map(|item| is_again(item, &mut before)).collect();
    if answers.iter().zip(&again).any(|(answers, again)| *answers && !again) {
        let mut again = again.into_iter();
        given.retain(|_| !again.next().unwrap_or_default());
    }
    Ok(())
}

/// Which items are results of calls that the input does not bring itself.
fn answers(given: &[Value]) -> Vec<bool> {
    let own: HashSet<&str> = given.iter().filter(|item| kind(item) == "function_call").filter_map(call_id).collect();
    let answers = |item: &Value| kind(item) == "function_call_output" && call_id(item).is_some_and(|id| !own.contains(id));
    given.iter().map(answers).collect()
}

fn call_id(item: &Value) -> Option<&str> {
    item.get("call_id").and_then(Value::as_str)
}

/// What was given to the turns that led here, back to the one that began with no result.
async fn before(state: &AppState, cx: &Context, session_id: &str, parent_id: &str) -> Result<Vec<Message>> {
    let mut given = Vec::new();
    let mut next = if parent_id.is_empty() { newest(state, cx, session_id).await? } else { turn(state, cx, parent_id).await? };
    while let Some(one) = next {
        let goes_on = one.input.first().is_some_and(|message| message.role() == Role::Tool) && !one.parent_turn_id.is_empty();
        given.extend(one.input);
        next = if goes_on { turn(state, cx, &one.parent_turn_id).await? } else { None };
    }
    Ok(given)
}

/// The last of a session's own turns.
async fn newest(state: &AppState, cx: &Context, session_id: &str) -> Result<Option<Turn>> {
    if session_id.is_empty() {
        return Ok(None);
    }
    let mut request =
        ListTurnsRequest { session_id: session_id.to_owned(), newest_first: true, page_size: 4, ..ListTurnsRequest::default() };
    loop {
        let page = state.agents.list_turns(cx, request.clone()).await?;
        if let Some(turn) = page.turns.into_iter().find(|turn| turn.caller_turn_id.is_empty()) {
            return Ok(Some(turn));
        }
        if page.next_page_token.is_empty() {
            return Ok(None);
        }
        request.page_token = page.next_page_token;
    }
}

/// A turn; none where it was deleted.
async fn turn(state: &AppState, cx: &Context, id: &str) -> Result<Option<Turn>> {
    match state.agents.get_turn(cx, GetTurnRequest { id: id.to_owned() }).await {
        Ok(turn) => Ok(Some(turn)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an item is a result or a message that was there `before`; each message of then stands for one of now.
fn is_again(item: &Value, before: &mut Vec<Message>) -> bool {
    // What cannot be read is refused by its place in the request, later.
    let Ok(read) = read_items("input", std::slice::from_ref(item)) else { return false };
    let Some(message) = read.messages.first() else { return false };
    match message.role() {
        Role::Tool => message.tool_results().all(|result| {
            let known = before.iter().flat_map(Message::tool_results).find(|known| known.call_id == result.call_id);
            known.is_some_and(|known| known.joined_text() == result.joined_text())
        }),
        Role::User | Role::System => {
            let said = |message: &Message| message.parts.iter().map(|part| part.content.clone()).collect::<Vec<_>>();
            let place = before.iter().position(|known| known.role() == message.role() && said(known) == said(message));
            let Some(place) = place else { return false };
            before.swap_remove(place);
            true
        }
        Role::Assistant | Role::Unspecified => false,
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Part, ToolResult};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_said_word_for_word_is_said_again() {
        let result = ToolResult { call_id: "a".into(), parts: vec![Part::text("rain")], ..ToolResult::default() };
        let labelled = Message::new(Role::User, vec![Part::text("and now?").with_provenance("user")]);
        let mut before = vec![Message::tool(vec![result]), labelled];
        let mut again = |item: Value| is_again(&item, &mut before);
        assert!(again(json!({ "type": "function_call_output", "call_id": "a", "output": "rain" })));
        assert!(!again(json!({ "type": "function_call_output", "call_id": "a", "output": "sun" })), "another result of the same call");
        assert!(!again(json!({ "type": "function_call_output", "call_id": "b", "output": "rain" })));
        assert!(!again(json!({ "role": "developer", "content": "and now?" })), "another role");
        assert!(!again(json!({ "role": "user" })), "what cannot be read is not left out");
        assert!(again(json!({ "role": "user", "content": [{ "type": "input_text", "text": "and now?" }] })));
        assert!(!again(json!({ "role": "user", "content": "and now?" })), "it was said once before, and has been found");
    }
}
