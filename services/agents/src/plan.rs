//! What a turn does next, from what it has done. Pure: no clock, no service, no memory but the turn itself.
//!
//! ```text
//! input shields ─> inference ─┬─ no calls ──────────────────────────────> end
//!                     ^       └─ calls: the server's, then the client's ─┐
//!                     └────────────── results, in call order <───────────┘   … up to a limit
//! ```

use llama_stack_proto::v1::{
    AgentConfig, FinishReason, InferenceStep, Limits, ShieldStage, ShieldStep, ToolCall, ToolStep, Turn, TurnStatus, Violation, step::Step,
    violation,
};
use serde_json::Value;

use crate::conversation::tool_steps;

#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Begin these steps, all at once.
    Start(Vec<Step>),
    /// The client owes the results of these.
    Await(Vec<ToolCall>),
    /// A shield let the input not pass: say this, and end.
    Refuse(String),
    /// With the reason, where it is incomplete.
    End(TurnStatus, &'static str),
}

/// The next move of a turn none of whose steps is open. `for_client`: the call is one that the client runs.
pub(crate) fn next(turn: &Turn, for_client: impl Fn(&ToolCall) -> bool) -> Next {
    let config = turn.config.clone().unwrap_or_default();
    let limits = config.limits.unwrap_or_default();
    if let Some(next) = judge_input(turn, &config) {
        return next;
    }
    let Some((at, said)) = last_inference(turn) else { return infer(turn, &config.model, &limits, false) };
    match said.finish_reason() {
        FinishReason::ContentFilter => return Next::End(TurnStatus::Incomplete, "content_filter"),
        // A call that was cut off in the middle is no call.
        FinishReason::Length => return Next::End(TurnStatus::Incomplete, "max_output_tokens"),
        FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Unspecified => {}
    }
    let calls: Vec<&ToolCall> = said.message.iter().flat_map(|message| message.tool_calls()).collect();
    if calls.is_empty() || said.tools_withheld {
        return Next::End(TurnStatus::Completed, "");
    }
    let begun = |call: &ToolCall| tool_steps(turn, at).any(|tool| tool.call.as_ref().is_some_and(|asked| asked.id == call.id));
    let todo: Vec<&ToolCall> = calls.iter().copied().filter(|call| !begun(call)).collect();
    if todo.is_empty() {
        let withheld = calls.iter().all(|call| repeated(turn, at, call).is_some());
        return infer(turn, &config.model, &limits, withheld);
    }
    let room = room_for_calls(turn, &limits);
    if room == 0 {
        return Next::End(TurnStatus::Incomplete, "max_tool_calls");
    }
    let is_clients = |call: &&ToolCall| for_client(call) && repeated(turn, at, call).is_none();
    let (clients, ours): (Vec<&ToolCall>, Vec<&ToolCall>) = todo.into_iter().partition(is_clients);
    if ours.is_empty() {
        // All or none: the client answers the whole set at once.
        let within = clients.len() <= room;
        let calls = clients.into_iter().cloned().collect();
        return if within { Next::Await(calls) } else { Next::End(TurnStatus::Incomplete, "max_tool_calls") };
    }
    let step = |call: &ToolCall| Step::Tool(ToolStep { call: Some(call.clone()), ..ToolStep::default() });
    Next::Start(ours.into_iter().take(room).map(step).collect())
}

/// All input shields at once, then nothing, or the refusal.
fn judge_input(turn: &Turn, config: &AgentConfig) -> Option<Next> {
    let judged: Vec<&ShieldStep> = shield_steps(turn).filter(|shield| shield.stage() == ShieldStage::Input).collect();
    if let Some(violation) = judged.iter().find_map(|shield| forbids(shield)) {
        // Said already: the refusal is the turn's last inference step.
        return match last_inference(turn) {
            Some(_) => Some(Next::End(TurnStatus::Incomplete, "content_filter")),
            None => Some(Next::Refuse(violation.user_message.clone())),
        };
    }
    let rest = config.input_shields.get(judged.len()..).filter(|rest| !rest.is_empty())?;
    Some(Next::Start(rest.iter().map(|id| shield_step(id, ShieldStage::Input)).collect()))
}

pub(crate) fn shield_step(id: &str, stage: ShieldStage) -> Step {
    Step::Shield(ShieldStep { shield_id: id.to_owned(), stage: stage.into(), verdict: None })
}

/// The violation that lets nothing pass; a warning does.
pub(crate) fn forbids(shield: &ShieldStep) -> Option<&Violation> {
    let violation = shield.verdict.as_ref()?.violation.as_ref()?;
    (violation.level() != violation::Level::Warn).then_some(violation)
}

/// One more inference, if the limits leave room for it.
fn infer(turn: &Turn, model: &str, limits: &Limits, tools_withheld: bool) -> Next {
    let steps = turn.steps.iter().filter(|step| matches!(step.step, Some(Step::Inference(_)))).count();
    if limits.max_steps != 0 && steps >= limits.max_steps as usize {
        return Next::End(TurnStatus::Incomplete, "max_steps");
    }
    if limits.max_tokens != 0 && tokens_left(turn, limits) == 0 {
        return Next::End(TurnStatus::Incomplete, "max_output_tokens");
    }
    Next::Start(vec![Step::Inference(InferenceStep { model: model.to_owned(), tools_withheld, ..InferenceStep::default() })])
}

/// What the turn may still generate; only meaningful with a bound.
pub(crate) fn tokens_left(turn: &Turn, limits: &Limits) -> u32 {
    limits.max_tokens.saturating_sub(turn.usage.as_ref().map_or(0, |usage| usage.completion_tokens))
}

fn room_for_calls(turn: &Turn, limits: &Limits) -> usize {
    let made = turn.steps.iter().filter(|step| matches!(step.step, Some(Step::Tool(_)))).count();
    if limits.max_tool_calls == 0 { usize::MAX } else { (limits.max_tool_calls as usize).saturating_sub(made) }
}

pub(crate) fn last_inference(turn: &Turn) -> Option<(usize, &InferenceStep)> {
    turn.steps.iter().enumerate().rev().find_map(|(index, step)| match &step.step {
        Some(Step::Inference(inference)) => Some((index, inference)),
        _ => None,
    })
}

fn shield_steps(turn: &Turn) -> impl Iterator<Item = &ShieldStep> {
    turn.steps.iter().filter_map(|step| match &step.step {
        Some(Step::Shield(shield)) => Some(shield),
        _ => None,
    })
}

/// The inference step that asked for the tool step at `index`.
pub(crate) fn asked_at(turn: &Turn, index: usize) -> usize {
    let before = turn.steps.get(..index).unwrap_or_default();
    before.iter().rposition(|step| matches!(step.step, Some(Step::Inference(_)))).unwrap_or_default()
}

/// An earlier call of this turn, before the step at `before`, with the same name, the same arguments and a result.
pub(crate) fn repeated<'a>(turn: &'a Turn, before: usize, call: &ToolCall) -> Option<&'a ToolStep> {
    turn.steps.iter().take(before).find_map(|step| match &step.step {
        Some(Step::Tool(tool)) if tool.result.is_some() && tool.call.as_ref().is_some_and(|earlier| same(earlier, call)) => Some(tool),
        _ => None,
    })
}

/// Arguments are compared as JSON: spaces and the order of keys do not make another call.
fn same(a: &ToolCall, b: &ToolCall) -> bool {
    if a.name != b.name {
        return false;
    }
    let read = |call: &ToolCall| serde_json::from_str::<Value>(&call.arguments);
    match (read(a), read(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a.arguments == b.arguments,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
