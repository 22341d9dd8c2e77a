//! What a client says again that the history holds already.
//!
//! Some clients keep their history here, and send with each result of a tool all that they have sent since their user spoke: the
//! message, and the results before. The API takes that, and the result still comes last. Here results come first, next to their
//! calls; so a message that was repeated would be a new question after them, and the call would be made again.

use std::collections::HashSet;

use llama_stack_core::{Code, Context, Result};
use llama_stack_proto::v1::{Message, Role, Turn, step::Step as StepKind};
use serde_json::Value;

use super::{
    input::{kind, read_items},
    lineage,
};
use crate::http::AppState;

/// Takes out of `given` the results that the turns before were given, and, of what stands before a result that is awaited, their
/// messages word for word. The last result of a call that is waited for is new, whatever it says. Without one that is new nothing is
/// taken out: what is wrong then, the runtime says.
///
/// # Errors
/// Those of reading turns.
pub(super) async fn leave_out(state: &AppState, cx: &Context, given: &mut Vec<Value>, session_id: &str, parent_id: &str) -> Result<()> {
    let answers = answers(given);
    let Some(last) = answers.iter().rposition(|answers| *answers).filter(|last| *last > 0) else { return Ok(()) };
    let (before, awaited) = match before(state, cx, session_id, parent_id).await {
        // For who may not read the turns, nothing is left out.
        Err(error) if error.code() == Code::PermissionDenied => return Ok(()),
        before => before?,
    };
    let again = again(&given[..=last], &answers, before, &awaited);
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

/// What was given to the turns that led here, back to the one that began with no result; and the calls that the last of them ended with.
async fn before(state: &AppState, cx: &Context, session_id: &str, parent_id: &str) -> Result<(Vec<Message>, HashSet<String>)> {
    let mut given = Vec::new();
    let mut next = lineage::last(state, cx, session_id, parent_id).await?;
    let awaited = next.as_ref().map(calls).unwrap_or_default();
    while let Some(one) = next {
        let goes_on = one.input.first().is_some_and(|message| message.role() == Role::Tool) && !one.parent_turn_id.is_empty();
        given.extend(one.input);
        next = if goes_on { lineage::turn(state, cx, &one.parent_turn_id).await? } else { None };
    }
    Ok((given, awaited))
}

/// The calls that the model made last.
fn calls(turn: &Turn) -> HashSet<String> {
    let said = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(StepKind::Inference(said)) => said.message.as_ref(),
        _ => None,
    });
    said.into_iter().flat_map(Message::tool_calls).map(|call| call.id.clone()).collect()
}

/// Which items, of which those that are `answers` end with the last, were given before.
fn again(given: &[Value], answers: &[bool], mut before: Vec<Message>, awaited: &HashSet<String>) -> Vec<bool> {
    let is_new = |place: usize| {
        // Some models give the calls of each answer the same ids.
        let id = call_id(&given[place]).filter(|id| answers[place] && awaited.contains(*id));
        id.is_some_and(|id| !given[place + 1..].iter().any(|later| call_id(later) == Some(id)))
    };
    given.iter().enumerate().map(|(place, item)| !is_new(place) && is_again(item, &mut before)).collect()
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

    #[test]
    fn the_last_result_of_a_call_that_is_waited_for_is_new() {
        let output = |id: &str| json!({ "type": "function_call_output", "call_id": id, "output": "ok" });
        let result = || ToolResult { call_id: "a".into(), parts: vec![Part::text("ok")], ..ToolResult::default() };
        let again = |given: &[Value], awaited: &[&str]| {
            let awaited = awaited.iter().map(|id| (*id).to_owned()).collect();
            super::again(given, &answers(given), vec![Message::tool(vec![result()])], &awaited)
        };
        assert_eq!(again(&[output("a"), output("b")], &["b"]), [true, false]);
        assert_eq!(again(&[output("a"), output("b")], &["a", "b"]), [false, false], "the id of a call before has come again");
        assert_eq!(again(&[output("a"), output("a")], &["a"]), [true, false]);
    }
}
