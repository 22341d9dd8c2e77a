//! A turn as messages: what a later turn, or the turn's own next step, shows to the model. Pure.
//!
//! The messages of a turn are only ever added to, so a model that has read them once can go on from there.

use std::collections::HashSet;

use llama_stack_proto::v1::{
    AgentConfig, CompactionStep, HandoffStep, Message, OutputModeration, Part, Role, ShieldStage, Step, ToolCall, ToolListStep, ToolResult,
    ToolStep, Turn, TurnStatus, output_moderation::Mode, step,
};

use crate::{fold::is_final, judged};

/// Of a window of an answer, where none is given.
const WINDOW_TOKENS: u32 = 64;

/// What a model is told of a call that has no result because its turn ended first.
const NEVER_ANSWERED: &str = "the turn ended before this call had a result; it may or may not have run";

/// What a model reads first where a history has been summarised.
const SUMMARY: &str = "Summary of the conversation so far:\n";

/// What the turn runs with now: its own configuration, or that of the agent that took it over.
pub(crate) fn config(turn: &Turn) -> AgentConfig {
    let taken = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(step::Step::Handoff(handoff)) => handoff.config.as_ref(),
        _ => None,
    });
    taken.or(turn.config.as_ref()).cloned().unwrap_or_default()
}

/// Ids of shields by what they judge, and how the answer is shown while they do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shields {
    pub(crate) input: Vec<String>,
    pub(crate) arguments: Vec<String>,
    results: Vec<String>,
    retrieved: Vec<String>,
    pub(crate) output: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) window_tokens: usize,
}

impl Shields {
    /// Those of a tool's result: what a search found is one as well.
    pub(crate) fn of_results(&self, stage: ShieldStage) -> Vec<String> {
        let mut ids = self.results.clone();
        if stage == ShieldStage::Retrieved {
            add_missing(&mut ids, &self.retrieved);
        }
        ids
    }
}

/// The shields of a turn as it stands. Who takes a turn over brings shields, and takes none away.
pub(crate) fn shields(turn: &Turn) -> Shields {
    let default = AgentConfig::default();
    let (begun, now) = (turn.config.as_ref().unwrap_or(&default), config(turn));
    let both = |list: fn(&AgentConfig) -> &Vec<String>| {
        let mut ids = list(begun).clone();
        add_missing(&mut ids, list(&now));
        ids
    };
    let judged = [begun, &now].into_iter().filter(|config| !config.output_shields.is_empty());
    let modes: Vec<OutputModeration> = judged.map(|config| config.output_moderation.unwrap_or_default()).collect();
    let has = |mode: Mode| modes.iter().any(|moderation| moderation.mode() == mode);
    let held = has(Mode::Held) || has(Mode::Unspecified);
    let windows = modes.iter().map(|moderation| moderation.window_tokens).filter(|tokens| *tokens > 0).min();
    Shields {
        input: begun.input_shields.clone(),
        arguments: both(|config| &config.tool_argument_shields),
        results: both(|config| &config.tool_result_shields),
        retrieved: both(|config| &config.retrieved_shields),
        output: both(|config| &config.output_shields),
        mode: match (held, has(Mode::Windowed)) {
            (true, _) => Mode::Held,
            (false, true) => Mode::Windowed,
            (false, false) => Mode::After,
        },
        window_tokens: windows.unwrap_or(WINDOW_TOKENS) as usize,
    }
}

pub(crate) fn add_missing(ids: &mut Vec<String>, more: &[String]) {
    for id in more {
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
}

/// The results of the parent's calls that this turn was given decisions on, the turn's input, what the model said, and
/// the results, in call order.
///
/// In a turn that has ended every call has a result; in one that runs or waits, those without are left open.
pub(crate) fn messages(turn: &Turn) -> Vec<Message> {
    let decided: Vec<&ToolCall> = turn.decided.iter().filter_map(|request| request.call.as_ref()).collect();
    let decided = results(turn, None, &decided);
    let mut messages = Vec::new();
    if !decided.is_empty() {
        messages.push(Message::tool(decided));
    }
    match judged::refusal(turn) {
        None => messages.extend(turn.input.iter().filter_map(readable)),
        // No later turn reads it either.
        Some(_) => messages.extend(judged::refused_input(&turn.input).iter().filter_map(readable)),
    }
    for (at, said) in said(turn) {
        let results = results(turn, Some(at), &said.tool_calls().collect::<Vec<_>>());
        messages.extend(readable(said));
        if !results.is_empty() {
            messages.push(Message::tool(results));
        }
    }
    messages
}

/// A message without what was taken out of it; `None` if nothing is left.
fn readable(message: &Message) -> Option<Message> {
    let there = |part: &Part| part.content.is_some();
    if message.parts.iter().all(there) {
        return Some(message.clone());
    }
    let parts: Vec<Part> = message.parts.iter().filter(|part| there(part)).cloned().collect();
    (!parts.is_empty()).then(|| Message { parts, ..message.clone() })
}

/// What the model has said so far, with the index of the step.
fn said(turn: &Turn) -> impl Iterator<Item = (usize, &Message)> {
    turn.steps.iter().enumerate().filter_map(|(index, step)| match &step.step {
        Some(step::Step::Inference(inference)) => Some((index, inference.message.as_ref()?)),
        _ => None,
    })
}

fn results(turn: &Turn, at: Option<usize>, calls: &[&ToolCall]) -> Vec<ToolResult> {
    let result = |call: &ToolCall| {
        let asked = |asked: &Option<ToolCall>| asked.as_ref().is_some_and(|asked| asked.id == call.id);
        let tools = tool_steps(turn, at).filter(|tool| asked(&tool.call)).map(|tool| &tool.result);
        let handoffs = handoff_steps(turn, at).filter(|handoff| asked(&handoff.call)).map(|handoff| &handoff.result);
        match tools.chain(handoffs).next().and_then(Clone::clone) {
            Some(result) => Some(result),
            None => is_final(turn.status()).then(|| ToolResult::text(call, NEVER_ANSWERED, true)),
        }
    };
    calls.iter().copied().filter_map(result).collect()
}

/// The steps between the inference step at `at` and the next; for `None` those before the first.
fn steps_after(turn: &Turn, at: Option<usize>) -> impl Iterator<Item = &Step> {
    let after = turn.steps.iter().skip(at.map_or(0, |at| at + 1));
    after.take_while(|step| !matches!(step.step, Some(step::Step::Inference(_))))
}

/// The tool steps between the inference step at `at` and the next; for `None` those before the first.
pub(crate) fn tool_steps(turn: &Turn, at: Option<usize>) -> impl Iterator<Item = &ToolStep> {
    steps_after(turn, at).filter_map(|step| match &step.step {
        Some(step::Step::Tool(tool)) => Some(tool),
        _ => None,
    })
}

/// As [`tool_steps`], of hand-offs.
pub(crate) fn handoff_steps(turn: &Turn, at: Option<usize>) -> impl Iterator<Item = &HandoffStep> {
    steps_after(turn, at).filter_map(|step| match &step.step {
        Some(step::Step::Handoff(handoff)) => Some(handoff),
        _ => None,
    })
}

/// What MCP servers listed since the agent has the turn.
pub(crate) fn tool_lists(turn: &Turn) -> impl Iterator<Item = &ToolListStep> {
    let taken_at = turn.steps.iter().rposition(|step| matches!(&step.step, Some(step::Step::Handoff(handoff)) if handoff.config.is_some()));
    turn.steps.iter().skip(taken_at.map_or(0, |at| at + 1)).filter_map(|step| match &step.step {
        Some(step::Step::ToolList(list)) => Some(list),
        _ => None,
    })
}

/// The newest summary that this turn made of its history.
pub(crate) fn compaction(turn: &Turn) -> Option<&CompactionStep> {
    turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(step::Step::Compaction(compaction)) if step.ended.is_some() && !compaction.summary.is_empty() => Some(compaction),
        _ => None,
    })
}

/// A history after it was summarised: the summary, then what was kept as it is.
///
/// The summary is a user's message, never a system's: it may hold words of tools and documents. It is labelled with the
/// first of those, if there are any.
pub(crate) fn compacted(compaction: &CompactionStep) -> Vec<Message> {
    let outside = compaction.provenance.iter().find(|label| label.starts_with("tool:") || label.starts_with("retrieved:"));
    let label = outside.cloned().unwrap_or_else(|| Role::Assistant.provenance().to_owned());
    let summary = Part::text(format!("{SUMMARY}{}", compaction.summary)).with_provenance(label);
    let mut messages = vec![Message::new(Role::User, vec![summary])];
    messages.extend_from_slice(&compaction.kept);
    messages
}

/// The calls before this turn that it answers: results in its input whose call is not in the input itself, and calls
/// that it was given decisions on.
pub(crate) fn answers(turn: &Turn) -> HashSet<String> {
    let own: HashSet<&str> = turn.input.iter().flat_map(Message::tool_calls).map(|call| call.id.as_str()).collect();
    let results = turn.input.iter().flat_map(Message::tool_results);
    let results = results.filter(|result| !own.contains(result.call_id.as_str())).map(|result| result.call_id.clone());
    let decided = turn.decided.iter().filter_map(|request| request.call.as_ref()).map(|call| call.id.clone());
    results.chain(decided).collect()
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
