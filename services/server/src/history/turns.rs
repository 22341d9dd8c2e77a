//! A turn as spans: the same names that are exported while it runs, from what its journal keeps.

use std::collections::HashMap;

use futures::future::{BoxFuture, FutureExt as _};
use llama_stack_core::{Agents, Code, Context, Result};
use llama_stack_proto::v1::{ErrorInfo, GetTurnRequest, Step, TraceSpan, Turn, TurnStatus, TurnTrace, step};

use crate::telemetry::PROVIDER;

/// Agents that call agents, deeper than any limit of theirs.
const MAX_DEPTH: usize = 16;

/// # Errors
/// `NotFound` no such turn
pub(super) async fn trace(agents: &dyn Agents, cx: &Context, turn_id: String) -> Result<TurnTrace> {
    let turn = agents.get_turn(cx, GetTurnRequest { id: turn_id.clone() }).await?;
    let mut spans = Vec::new();
    below(agents, cx, turn, String::new(), MAX_DEPTH, &mut spans).await?;
    Ok(TurnTrace { turn_id, spans })
}

fn below<'a>(
    agents: &'a dyn Agents,
    cx: &'a Context,
    turn: Turn,
    parent: String,
    depth: usize,
    spans: &'a mut Vec<TraceSpan>,
) -> BoxFuture<'a, Result<()>> {
    async move {
        spans.push(of_turn(&turn, parent));
        for step in &turn.steps {
            let span = of_step(step, &turn);
            let id = span.id.clone();
            spans.push(span);
            let Some(step::Step::Tool(tool)) = &step.step else { continue };
            if tool.child_turn_id.is_empty() || depth == 0 {
                continue;
            }
            match agents.get_turn(cx, GetTurnRequest { id: tool.child_turn_id.clone() }).await {
                Ok(child) => below(agents, cx, child, id, depth - 1, spans).await?,
                // It was deleted; that it was called is in the caller's journal.
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
    .boxed()
}

pub(super) fn of_turn(turn: &Turn, parent_id: String) -> TraceSpan {
    let config = turn.config.as_ref();
    let name = config.map_or("", |config| config.name.as_str());
    let mut attributes = HashMap::new();
    note(&mut attributes, "gen_ai.provider.name", PROVIDER);
    note(&mut attributes, "gen_ai.agent.name", name);
    note(&mut attributes, "gen_ai.conversation.id", &turn.session_id);
    note(&mut attributes, "gen_ai.agent.id", &turn.agent_id);
    note(&mut attributes, "gen_ai.request.model", config.map(|config| config.model.as_str()).unwrap_or_default());
    if let Some(usage) = &turn.usage {
        note(&mut attributes, "gen_ai.usage.input_tokens", &usage.prompt_tokens.to_string());
        note(&mut attributes, "gen_ai.usage.output_tokens", &usage.completion_tokens.to_string());
    }
    let status = turn.status().as_str_name().trim_start_matches("TURN_STATUS_").to_lowercase();
    note(&mut attributes, "llama_stack.turn.status", &status);
    note(&mut attributes, "llama_stack.turn.incomplete_reason", &turn.incomplete_reason);
    TraceSpan {
        id: turn.id.clone(),
        parent_id,
        name: named("invoke_agent", name),
        operation: "invoke_agent".into(),
        started: turn.created,
        ended: turn.ended,
        attributes,
        error: turn.error.clone().filter(|_| turn.status() == TurnStatus::Failed),
    }
}

pub(super) fn of_step(step: &Step, turn: &Turn) -> TraceSpan {
    let mut attributes = HashMap::new();
    let mut error: Option<ErrorInfo> = None;
    let (operation, object) = match &step.step {
        Some(step::Step::Inference(inference)) => {
            note(&mut attributes, "gen_ai.provider.name", PROVIDER);
            note(&mut attributes, "gen_ai.request.model", &inference.model);
            if let Some(usage) = &inference.usage {
                note(&mut attributes, "gen_ai.usage.input_tokens", &usage.prompt_tokens.to_string());
                note(&mut attributes, "gen_ai.usage.output_tokens", &usage.completion_tokens.to_string());
            }
            if inference.cut_off {
                note(&mut attributes, "llama_stack.cut_off", "true");
            }
            ("chat", inference.model.clone())
        }
        Some(step::Step::Tool(tool)) => {
            let call = tool.call.clone().unwrap_or_default();
            note(&mut attributes, "gen_ai.tool.name", &call.name);
            note(&mut attributes, "gen_ai.tool.call.id", &call.id);
            note(&mut attributes, "llama_stack.mcp.server", &tool.server_label);
            note(&mut attributes, "llama_stack.policy", &tool.policy);
            if tool.result.as_ref().is_some_and(|result| result.is_error) {
                note(&mut attributes, "error.type", "tool_error");
            }
            ("execute_tool", call.name)
        }
        Some(step::Step::Shield(shield)) => {
            note(&mut attributes, "llama_stack.shield.id", &shield.shield_id);
            let stage = shield.stage().as_str_name().trim_start_matches("SHIELD_STAGE_").to_lowercase();
            note(&mut attributes, "llama_stack.shield.stage", &stage);
            let violates = shield.verdict.as_ref().is_some_and(|verdict| verdict.violation.is_some());
            note(&mut attributes, "llama_stack.shield.outcome", if violates { "violation" } else { "passed" });
            error.clone_from(&shield.error);
            ("run_shield", shield.shield_id.clone())
        }
        Some(step::Step::ToolList(list)) => {
            error.clone_from(&list.error);
            ("list_tools", list.server_label.clone())
        }
        Some(step::Step::Handoff(handoff)) => ("handoff", handoff.agent_id.clone()),
        Some(step::Step::Compaction(_)) => ("compact", String::new()),
        None => ("step", String::new()),
    };
    TraceSpan {
        id: step.id.clone(),
        parent_id: turn.id.clone(),
        name: named(operation, &object),
        operation: operation.into(),
        started: step.started,
        // What a cancel cut off has no end of its own.
        ended: step.ended.or(turn.ended),
        attributes,
        error,
    }
}

fn named(operation: &str, object: &str) -> String {
    if object.is_empty() { operation.to_owned() } else { format!("{operation} {object}") }
}

fn note(attributes: &mut HashMap<String, String>, key: &str, value: &str) {
    if !value.is_empty() {
        attributes.insert(key.into(), value.into());
    }
}
