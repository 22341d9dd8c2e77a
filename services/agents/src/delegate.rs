//! Agents that work together: one answers another's call in a turn of its own, or takes its turn over.
//!
//! ```text
//! turn ── step: call of an agent ── intent with the id of the turn that will answer ──> that turn, with its own journal
//! ```
//!
//! The id is in the intent, so a call that was cut off finds the turn that it began, and no agent is asked twice.

use std::sync::Arc;

use futures::StreamExt as _;
use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, HandoffStep, Limits, Message, Part, Role, ToolCall, ToolResult, ToolStep, Turn, TurnStatus, step::Step,
};

use crate::{
    begin::{self, Called},
    check,
    fold::is_final,
    runtime::Shared,
    turns,
    watch::{self, Watcher},
};

/// Has an agent answer the call of `step`, whose `child_turn_id` is the turn to answer in. It always gets a result.
pub(crate) async fn ask(shared: Arc<Shared>, cx: Context, caller: Caller, step: ToolStep) -> ToolStep {
    let call = step.call.clone().unwrap_or_default();
    let answered = match caller.room() {
        Ok(()) => answer(&shared, &cx, &caller, &call, &step.child_turn_id).await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(turn) => ToolStep { result: Some(result(&call, &turn)), usage: turn.usage, cost: turn.cost, ..step },
        Err(error) => {
            tracing::warn!(tool = call.name, error = ?error, "an agent could not be called");
            let told = format!("the agent could not be called: {}", error.message());
            ToolStep { result: Some(ToolResult::text(&call, told, true)), ..step }
        }
    }
}

/// The turn that calls.
pub(crate) struct Caller {
    pub(crate) turn_id: String,
    pub(crate) session_id: String,
    pub(crate) depth: u32,
    /// The agent that is called.
    pub(crate) agent_id: String,
    /// What is left of the caller's own, for this call.
    pub(crate) limits: Limits,
    pub(crate) background: bool,
    /// It has read nothing that others wrote and nothing private, so what it asks for can hold none of that.
    pub(crate) clean: bool,
}

impl Caller {
    fn room(&self) -> Result<()> {
        if self.depth >= self.limits.max_depth {
            let message = format!("agents call agents at most {} deep here: answer without", self.limits.max_depth);
            return Err(Error::failed_precondition(message).with_reason("max_depth"));
        }
        Ok(())
    }
}

async fn answer(shared: &Arc<Shared>, cx: &Context, caller: &Caller, call: &ToolCall, turn_id: &str) -> Result<Turn> {
    let begun = watch::exists(shared, cx.tenant(), turn_id).await;
    if begun.as_ref().is_err_and(|error| error.code() == Code::NotFound) {
        let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        let input = arguments.get("input").and_then(serde_json::Value::as_str).unwrap_or(&call.arguments);
        // What one agent tells another is a model's word, not a person's; and it may repeat what the model has read.
        let provenance = if caller.clean { Role::Assistant.provenance().to_owned() } else { format!("tool:{}", call.name) };
        let input = Message::new(Role::User, vec![Part::text(input).with_provenance(provenance)]);
        let request = CreateTurnRequest {
            session_id: caller.session_id.clone(),
            agent_id: caller.agent_id.clone(),
            input: vec![input],
            background: caller.background,
            ..CreateTurnRequest::default()
        };
        let called =
            Called { turn_id: turn_id.to_owned(), caller_turn_id: caller.turn_id.clone(), depth: caller.depth + 1, limits: caller.limits };
        begin::call(shared, cx, request, called).await?;
    } else {
        begun?;
    }
    let mut events = Watcher::new(shared, cx, turn_id, 0).stream();
    while let Some(event) = events.next().await {
        event?;
    }
    let turn = shared.load(cx.tenant(), turn_id).await?.turn;
    if is_final(turn.status()) { Ok(turn) } else { turns::cancel(shared, cx, turn_id).await }
}

fn result(call: &ToolCall, turn: &Turn) -> ToolResult {
    let said = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(Step::Inference(inference)) => inference.message.as_ref().map(Message::joined_text),
        _ => None,
    });
    let said = said.unwrap_or_default();
    let (text, is_error) = match turn.status() {
        TurnStatus::Completed => (said, false),
        TurnStatus::Incomplete => (format!("{said}\n(the agent was stopped: {})", turn.incomplete_reason), true),
        TurnStatus::Failed => {
            let why = turn.error.as_ref().map_or("no reason is known", |error| error.message.as_str());
            (format!("the agent failed: {why}"), true)
        }
        _ => ("the agent needed a person or a client to go on, which an agent that is called cannot have".to_owned(), true),
    };
    let mut result = ToolResult::text(call, text, is_error);
    result.parts.iter_mut().for_each(|part| part.provenance = format!("tool:{}", call.name));
    result
}

/// What an agent that is called may take of the caller's: an equal share of what is left, with its siblings.
pub(crate) fn share(turn: &Turn, seconds_left: u64, siblings: usize) -> Limits {
    let limits = turn.config.as_ref().and_then(|config| config.limits).unwrap_or_default();
    let ways = u32::try_from(siblings.max(1)).unwrap_or(1);
    let tokens = if limits.max_tokens == 0 { 0 } else { (crate::plan::tokens_left(turn, &limits) / ways).max(1) };
    let cost = if limits.max_cost > 0.0 { ((limits.max_cost - turn.cost) / f64::from(ways)).max(f64::MIN_POSITIVE) } else { 0.0 };
    let max_seconds = u32::try_from(seconds_left.max(1)).unwrap_or(u32::MAX);
    Limits { max_tokens: tokens, max_cost: cost, max_seconds, max_depth: limits.max_depth, ..Limits::default() }
}

/// The smaller of two bounds, of which 0 is none.
pub(crate) fn narrower(own: Limits, given: &Limits) -> Limits {
    fn least<T: PartialOrd + Default>(a: T, b: T) -> T {
        if a == T::default() || (b != T::default() && b < a) { b } else { a }
    }
    Limits {
        max_steps: least(own.max_steps, given.max_steps),
        max_tokens: least(own.max_tokens, given.max_tokens),
        max_seconds: least(own.max_seconds, given.max_seconds),
        max_tool_calls: least(own.max_tool_calls, given.max_tool_calls),
        max_cost: least(own.max_cost, given.max_cost),
        max_depth: given.max_depth,
    }
}

/// Another agent takes the turn over, or the model is told why not.
pub(crate) async fn hand_off(shared: Arc<Shared>, cx: Context, step: HandoffStep) -> HandoffStep {
    let call = step.call.clone().unwrap_or_default();
    let taken = async {
        let agent = shared.agent(cx.tenant(), &step.agent_id).await?;
        let mut config = agent.config.unwrap_or_default();
        check::shields(&shared.parts, &cx, &config).await?;
        check::add_defaults(&mut config, &shared.parts.shielding.defaults);
        Ok(config)
    };
    let taken: Result<AgentConfig> = taken.await;
    match taken {
        Ok(config) => {
            let told = if config.name.is_empty() { step.agent_id.clone() } else { config.name.clone() };
            HandoffStep {
                result: Some(ToolResult::text(&call, format!("{told} has the conversation now"), false)),
                config: Some(config),
                ..step
            }
        }
        Err(error) => {
            let told = format!("the hand-off failed: {}", error.message());
            HandoffStep { result: Some(ToolResult::text(&call, told, true)), ..step }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_only_ever_narrowed() {
        let own = Limits { max_steps: 4, max_tokens: 0, max_seconds: 600, ..Limits::default() };
        let given = Limits { max_steps: 0, max_tokens: 50, max_seconds: 20, max_cost: 0.5, max_depth: 2, ..Limits::default() };
        let narrowed = narrower(own, &given);
        let expected = Limits { max_steps: 4, max_tokens: 50, max_seconds: 20, max_cost: 0.5, max_depth: 2, ..Limits::default() };
        assert_eq!(narrowed, expected);
    }
}
