//! What a turn does next, from what it has done. Pure: no clock, no service, no memory but the turn itself.
//!
//! ```text
//! shields on the input ─> tool lists ─> decided calls ─> inference ─┬─ no calls ────────────────────> end
//!                                                          ^        └─ calls: those that may run, then what
//!                                                          │           the client or a person owes ─┐
//!                                                          └──── results, in call order <───────────┘   … up to a limit
//! ```

use llama_stack_policy::Decision;
use llama_stack_proto::v1::{
    AgentConfig, ApprovalRequest, FinishReason, HandoffStep, InferenceStep, Limits, ToolCall, ToolListStep, ToolStep, Turn, TurnStatus,
    step::Step,
};
use serde_json::Value;

use crate::{
    conversation::{self, handoff_steps, tool_steps},
    fold::Fold,
    judged,
};

#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Begin these steps, all at once.
    Start(Vec<Step>),
    /// The client owes the results of these, and a person the decisions on those.
    Await(Vec<ToolCall>, Vec<ApprovalRequest>),
    /// A shield let the input not pass: say this, and end.
    Refuse(String),
    /// With the reason, where it is incomplete.
    End(TurnStatus, &'static str),
}

/// What the plan must know of a call; the turn's toolbox tells it.
pub(crate) trait Desk {
    fn runner(&self, call: &ToolCall) -> RunBy;
    /// Whether it may run.
    fn gate(&self, call: &ToolCall) -> Gate;
    /// The question to a person.
    fn request(&self, call: &ToolCall, asked_by: &str) -> ApprovalRequest;
}

/// Who runs a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunBy {
    Client,
    /// This stack, or nobody: a call that cannot be run has a result as well.
    Stack,
    /// The MCP server of this label.
    Server(String),
    /// An agent answers, in a turn of its own.
    Agent,
    /// The agent of this id takes over.
    Handoff(String),
}

/// Each with what the policy said of it, which is empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open {
        policy: String,
    },
    /// Only if a person says so.
    Ask {
        asked_by: String,
        policy: String,
    },
    Shut {
        policy: String,
    },
}

impl From<Decision> for Gate {
    fn from(decision: Decision) -> Self {
        let policy = decision.to_string();
        match decision {
            Decision::Allow { .. } => Self::Open { policy },
            Decision::Ask { policies } => Self::Ask { asked_by: format!("policy:{}", policies.join(",")), policy },
            Decision::Deny { .. } => Self::Shut { policy },
        }
    }
}

/// The next move of a turn none of whose steps is open.
pub(crate) fn next(fold: &Fold, desk: &impl Desk) -> Next {
    let turn = &fold.turn;
    if turn.append_only {
        return match judge_input(turn) {
            Some(Next::Start(shields)) => Next::Start(shields),
            // Nobody is there to be told: it is in no history.
            Some(_) => Next::End(TurnStatus::Incomplete, "content_filter"),
            None => Next::End(TurnStatus::Completed, ""),
        };
    }
    match judge_input(turn) {
        Some(next) => next,
        None => once_judged(fold, desk),
    }
}

/// The inference that comes next if shields let all pass that came from outside; `None` where something else does.
pub(crate) fn ahead(fold: &Fold, desk: &impl Desk) -> Option<Step> {
    if fold.turn.append_only {
        return None;
    }
    match once_judged(fold, desk) {
        Next::Start(steps) => steps.into_iter().next().filter(|step| matches!(step, Step::Inference(_))),
        Next::Await(..) | Next::Refuse(_) | Next::End(..) => None,
    }
}

/// The next move once what came from outside has passed.
fn once_judged(fold: &Fold, desk: &impl Desk) -> Next {
    let turn = &fold.turn;
    let config = conversation::config(turn);
    let limits = turn.config.as_ref().and_then(|config| config.limits).unwrap_or_default();
    if let Some(next) = list_tools(turn, &config) {
        return next;
    }
    let decided: Vec<&ToolCall> = turn.decided.iter().filter_map(|request| request.call.as_ref()).collect();
    if let Some(next) = run_calls(fold, &decided, None, desk, &limits) {
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
    // With its last call a model has lost its tools, so that it comes to an answer.
    let spent = room_for_calls(turn, &limits) == 0;
    if calls.is_empty() || said.tools_withheld && !spent {
        return Next::End(TurnStatus::Completed, "");
    }
    if said.tools_withheld {
        return Next::End(TurnStatus::Incomplete, "max_tool_calls");
    }
    run_calls(fold, &calls, Some(at), desk, &limits).unwrap_or_else(|| {
        let withheld = spent || calls.iter().all(|call| repeated(turn, Some(at), call).is_some());
        infer(turn, &config.model, &limits, withheld)
    })
}

/// The calls that have not begun: what can run first, then what others owe. `None` once all have.
fn run_calls(fold: &Fold, calls: &[&ToolCall], at: Option<usize>, desk: &impl Desk, limits: &Limits) -> Option<Next> {
    let turn = &fold.turn;
    let begun = |call: &ToolCall| {
        let same = |asked: &Option<ToolCall>| asked.as_ref().is_some_and(|asked| asked.id == call.id);
        tool_steps(turn, at).any(|tool| same(&tool.call)) || handoff_steps(turn, at).any(|handoff| same(&handoff.call))
    };
    let todo: Vec<&ToolCall> = calls.iter().copied().filter(|call| !begun(call)).collect();
    if todo.is_empty() {
        return None;
    }
    let room = room_for_calls(turn, limits);
    if room == 0 {
        return Some(Next::End(TurnStatus::Incomplete, "max_tool_calls"));
    }
    let (mut ours, mut clients, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for call in todo {
        let step = ToolStep { call: Some(call.clone()), ..ToolStep::default() };
        if repeated(turn, at, call).is_some() {
            ours.push(Step::Tool(step));
            continue;
        }
        if judged::shut(turn, at, call).is_some() {
            // Nobody runs it, and nobody is asked: the model is told why.
            ours.push(Step::Tool(step));
            continue;
        }
        let runner = desk.runner(call);
        if runner == RunBy::Client {
            clients.push(call.clone());
            continue;
        }
        let decided = fold.decision_on(&call.id);
        let approval_request_id = decided.map(|(request, _)| request.id.clone());
        let approved = decided.is_none_or(|(_, decision)| decision.as_ref().is_some_and(|decision| decision.approve));
        let policy = match desk.gate(call) {
            Gate::Ask { asked_by, .. } if approval_request_id.is_none() => {
                asked.push(desk.request(call, &asked_by));
                continue;
            }
            Gate::Ask { policy, .. } | Gate::Open { policy } | Gate::Shut { policy } => policy,
        };
        let approval_request_id = approval_request_id.unwrap_or_default();
        ours.push(match runner {
            RunBy::Handoff(agent_id) if policy_allows(&policy) && approved => {
                Step::Handoff(HandoffStep { call: Some(call.clone()), agent_id, ..HandoffStep::default() })
            }
            RunBy::Server(server_label) => Step::Tool(ToolStep { server_label, policy, approval_request_id, ..step }),
            _ => Step::Tool(ToolStep { policy, approval_request_id, ..step }),
        });
    }
    if !ours.is_empty() {
        ours.truncate(room);
        return Some(Next::Start(ours));
    }
    // All or none: what is owed is brought at once.
    let within = clients.len() + asked.len() <= room;
    Some(if within { Next::Await(clients, asked) } else { Next::End(TurnStatus::Incomplete, "max_tool_calls") })
}

/// What is written in `ToolStep.policy` of a call that the policy forbids begins so.
pub(crate) const DENIED: &str = "deny:";

fn policy_allows(policy: &str) -> bool {
    !policy.starts_with(DENIED)
}

/// All shields on what came from outside at once, then nothing, or the refusal.
fn judge_input(turn: &Turn) -> Option<Next> {
    if let Some(words) = judged::refusal(turn) {
        // Said already: the refusal is the turn's last inference step.
        let said = last_inference(turn).is_some_and(|(_, said)| said.finish_reason() == FinishReason::ContentFilter);
        return Some(if said { Next::End(TurnStatus::Incomplete, "content_filter") } else { Next::Refuse(words.to_owned()) });
    }
    let due = judged::due(turn, &judged::pieces(turn, &conversation::shields(turn)));
    (!due.is_empty()).then(|| Next::Start(due.into_iter().map(Step::Shield).collect()))
}

/// The next server that has not been asked for its tools since the agent has the turn.
fn list_tools(turn: &Turn, config: &AgentConfig) -> Option<Next> {
    let listed: Vec<&str> = conversation::tool_lists(turn).map(|list| list.server_label.as_str()).collect();
    // One after the other: each is checked against the names that those before it brought.
    let next = config.mcp_servers.iter().find(|server| !listed.contains(&server.label.as_str()))?;
    let step = ToolListStep { server_label: next.label.clone(), ..ToolListStep::default() };
    Some(Next::Start(vec![Step::ToolList(step)]))
}

/// One more inference, if the limits leave room for it.
fn infer(turn: &Turn, model: &str, limits: &Limits, tools_withheld: bool) -> Next {
    let steps = turn.steps.iter().filter(|step| matches!(&step.step, Some(Step::Inference(inference)) if !inference.cut_off)).count();
    if limits.max_steps != 0 && steps >= limits.max_steps as usize {
        return Next::End(TurnStatus::Incomplete, "max_steps");
    }
    if limits.max_tokens != 0 && tokens_left(turn, limits) == 0 {
        return Next::End(TurnStatus::Incomplete, "max_output_tokens");
    }
    if limits.max_cost > 0.0 && turn.cost >= limits.max_cost {
        return Next::End(TurnStatus::Incomplete, "max_cost");
    }
    Next::Start(vec![Step::Inference(InferenceStep { model: model.to_owned(), tools_withheld, ..InferenceStep::default() })])
}

/// What the turn may still generate; only meaningful with a bound.
pub(crate) fn tokens_left(turn: &Turn, limits: &Limits) -> u32 {
    limits.max_tokens.saturating_sub(turn.usage.as_ref().map_or(0, |usage| usage.completion_tokens))
}

fn room_for_calls(turn: &Turn, limits: &Limits) -> usize {
    let made = turn.steps.iter().filter(|step| matches!(step.step, Some(Step::Tool(_) | Step::Handoff(_)))).count();
    if limits.max_tool_calls == 0 { usize::MAX } else { (limits.max_tool_calls as usize).saturating_sub(made) }
}

/// The last inference that came to an end.
pub(crate) fn last_inference(turn: &Turn) -> Option<(usize, &InferenceStep)> {
    turn.steps.iter().enumerate().rev().find_map(|(index, step)| match &step.step {
        Some(Step::Inference(inference)) if !inference.cut_off => Some((index, inference)),
        _ => None,
    })
}

/// The inference step that asked for the tool step at `index`; `None` where a turn before this one did.
pub(crate) fn asked_at(turn: &Turn, index: usize) -> Option<usize> {
    let before = turn.steps.get(..index).unwrap_or_default();
    before.iter().rposition(|step| matches!(step.step, Some(Step::Inference(_))))
}

/// An earlier call of this turn, before the step at `before`, with the same name, the same arguments and a result.
pub(crate) fn repeated<'a>(turn: &'a Turn, before: Option<usize>, call: &ToolCall) -> Option<&'a ToolStep> {
    turn.steps.iter().take(before.unwrap_or_default()).find_map(|step| match &step.step {
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
