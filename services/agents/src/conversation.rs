//! A turn as messages: what a later turn, or the turn's own next step, shows to the model. Pure.
//!
//! The messages of a turn are only ever added to, so a model that has read them once can go on from there.

use std::collections::HashSet;

use llama_stack_proto::v1::{Message, Role, ToolCall, ToolResult, ToolStep, Turn, TurnStatus, step};

use crate::fold::is_final;

/// What a model is told of a call that has no result because its turn ended first.
const NEVER_ANSWERED: &str = "the turn ended before this call had a result; it may or may not have run";

/// The turn's input, what the model said, and the results, in call order.
///
/// In a turn that has ended every call has a result; in one that runs or waits, those without are left open.
pub(crate) fn messages(turn: &Turn) -> Vec<Message> {
    let mut messages = turn.input.clone();
    for (at, said) in said(turn) {
        let results = results(turn, at, said);
        messages.push(said.clone());
        if !results.is_empty() {
            messages.push(Message::tool(results));
        }
    }
    messages
}

/// What the model has said so far, with the index of the step.
fn said(turn: &Turn) -> impl Iterator<Item = (usize, &Message)> {
    turn.steps.iter().enumerate().filter_map(|(index, step)| match &step.step {
        Some(step::Step::Inference(inference)) => Some((index, inference.message.as_ref()?)),
        _ => None,
    })
}

fn results(turn: &Turn, at: usize, said: &Message) -> Vec<ToolResult> {
    let result = |call: &ToolCall| {
        let tool = tool_steps(turn, at).find(|tool| tool.call.as_ref().is_some_and(|asked| asked.id == call.id));
        match tool.and_then(|tool| tool.result.clone()) {
            Some(result) => Some(result),
            None => is_final(turn.status()).then(|| ToolResult::text(call, NEVER_ANSWERED, true)),
        }
    };
    said.tool_calls().filter_map(result).collect()
}

/// The tool steps between the inference step at `at` and the next.
pub(crate) fn tool_steps(turn: &Turn, at: usize) -> impl Iterator<Item = &ToolStep> {
    let after = turn.steps.iter().skip(at + 1);
    after.take_while(|step| !matches!(step.step, Some(step::Step::Inference(_)))).filter_map(|step| match &step.step {
        Some(step::Step::Tool(tool)) => Some(tool),
        _ => None,
    })
}

/// The calls before this input that it answers: results whose call is not in the input itself.
pub(crate) fn answers(input: &[Message]) -> HashSet<String> {
    let own: HashSet<&str> = input.iter().flat_map(Message::tool_calls).map(|call| call.id.as_str()).collect();
    let results = input.iter().flat_map(Message::tool_results);
    results.filter(|result| !own.contains(result.call_id.as_str())).map(|result| result.call_id.clone()).collect()
}

/// The messages of a turn as a turn sees them that answers `answered` of its calls: up to those calls, and without what
/// came of them in the turn itself, which may have been resumed or cancelled since.
pub(crate) fn until_answered(messages: &[Message], answered: &HashSet<String>) -> Vec<Message> {
    let asks = |message: &Message| message.tool_calls().any(|call| answered.contains(&call.id));
    let Some(at) = messages.iter().rposition(asks) else { return messages.to_vec() };
    let mut kept = messages[..=at].to_vec();
    let others: Vec<ToolResult> = messages[at + 1..]
        .iter()
        .take_while(|message| message.role() == Role::Tool)
        .flat_map(Message::tool_results)
        .filter(|result| !answered.contains(&result.call_id))
        .cloned()
        .collect();
    if !others.is_empty() {
        kept.push(Message::tool(others));
    }
    kept
}

/// Whether a turn with this status can be continued: it has ended, or it waits for results that the next input brings.
pub(crate) fn continues(status: TurnStatus) -> bool {
    is_final(status) || status == TurnStatus::AwaitingTools
}

/// Whether the model has said anything in this turn.
pub(crate) fn has_spoken(turn: &Turn) -> bool {
    said(turn).next().is_some()
}
