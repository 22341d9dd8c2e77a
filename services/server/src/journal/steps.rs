//! One step of a turn, as JSON.

use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use llama_stack_proto::v1::{
    FinishReason, InferenceStep, RunShieldResponse, ShieldStep, Step, ToolStep, Turn, Usage, step::Step as Kind, violation::Level,
};

use super::Tokens;

/// Longer texts are cut: a trace is for reading, the items have the whole.
const MOST_BYTES: usize = 16 << 10;

pub(super) fn milliseconds(time: Option<&Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000))
}

/// What a model said in a step.
pub(super) fn said(step: &Step) -> String {
    match &step.step {
        Some(Kind::Inference(inference)) => inference.message.as_ref().map(|message| message.joined_text()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// `{type, index, started_ms, ended_ms, …}`, by the kind of the step.
pub(super) fn shown(step: &Step, turn: &Turn) -> Value {
    let mut shown = match &step.step {
        Some(Kind::Inference(inference)) => of_inference(inference),
        Some(Kind::Tool(tool)) => of_tool(tool),
        Some(Kind::Shield(shield)) => of_shield(shield),
        Some(Kind::ToolList(list)) => json!({
            "type": "tool_list",
            "server_label": list.server_label,
            "tools": list.tools.iter().map(|tool| &tool.name).collect::<Vec<_>>(),
            "error": list.error.as_ref().map(|error| &error.message),
        }),
        Some(Kind::Handoff(handoff)) => json!({
            "type": "handoff",
            "agent_id": handoff.agent_id,
            "result": handoff.result.as_ref().map(|result| cut(&result.joined_text())),
        }),
        Some(Kind::Compaction(compaction)) => json!({
            "type": "compaction",
            "summary": cut(&compaction.summary),
            "tokens_before": compaction.tokens_before,
            "tokens_after": compaction.tokens_after,
            "usage": tokens(compaction.usage.as_ref()),
        }),
        None => json!({ "type": "unknown" }),
    };
    shown["index"] = step.index.into();
    shown["started_ms"] = milliseconds(step.started.as_ref()).into();
    // What a cancel cut off has no end of its own.
    shown["ended_ms"] = milliseconds(step.ended.as_ref().or(turn.ended.as_ref())).into();
    shown
}

fn of_inference(inference: &InferenceStep) -> Value {
    let message = inference.message.clone().unwrap_or_default();
    let calls: Vec<Value> =
        message.tool_calls().map(|call| json!({ "id": call.id, "name": call.name, "arguments": cut(&call.arguments) })).collect();
    let finish_reason = match inference.finish_reason() {
        FinishReason::Stop => Some("stop"),
        FinishReason::Length => Some("length"),
        FinishReason::ToolCalls => Some("tool_calls"),
        FinishReason::ContentFilter => Some("content_filter"),
        FinishReason::Unspecified => None,
    };
    json!({
        "type": "inference",
        "model": inference.model,
        "text": cut(&message.joined_text()),
        "tool_calls": calls,
        "finish_reason": finish_reason,
        "usage": tokens(inference.usage.as_ref()),
        "cost": inference.cost,
        "cut_off": inference.cut_off,
        "messages_left_out": inference.messages_left_out,
    })
}

fn of_tool(tool: &ToolStep) -> Value {
    let call = tool.call.clone().unwrap_or_default();
    json!({
        "type": "tool",
        "call_id": call.id,
        "name": call.name,
        "arguments": cut(&call.arguments),
        "result": tool.result.as_ref().map(|result| cut(&result.joined_text())),
        "is_error": tool.result.as_ref().is_some_and(|result| result.is_error),
        "client": tool.client,
        "server_label": tool.server_label,
        "policy": tool.policy,
        "approval_request_id": tool.approval_request_id,
        "child_response_id": (!tool.child_turn_id.is_empty()).then(|| crate::openai::response_id(&tool.child_turn_id)),
        "usage": tokens(tool.usage.as_ref()),
    })
}

fn of_shield(shield: &ShieldStep) -> Value {
    let stage = shield.stage().as_str_name().trim_start_matches("SHIELD_STAGE_").to_lowercase();
    let verdict = shield.verdict.clone().unwrap_or_default();
    json!({
        "type": "shield",
        "shield_id": shield.shield_id,
        "stage": stage,
        "call_id": shield.call_id,
        "outcome": outcome(shield, &verdict),
        "categories": verdict.violation.as_ref().map(|violation| &violation.categories),
        "message": verdict.violation.as_ref().map(|violation| &violation.user_message),
        "scores": verdict.scores.iter().map(|score| (score.code.clone(), score.score.into())).collect::<Map<String, Value>>(),
        "judged_bytes": verdict.judged_bytes,
        "known_bytes": verdict.known_bytes,
        "error": shield.error.as_ref().map(|error| &error.message),
    })
}

/// In the words of the metric `llama_stack_shield_verdicts_total`.
fn outcome(shield: &ShieldStep, verdict: &RunShieldResponse) -> Option<&'static str> {
    Some(match (&shield.verdict, &verdict.violation, &verdict.redacted) {
        (None, ..) if shield.error.is_none() => return None,
        (None, ..) => "no_verdict",
        (_, Some(violation), _) if violation.level() == Level::Warn => "warn",
        (_, Some(_), _) => "violation",
        (_, None, Some(_)) => "redacted",
        (_, None, None) => "safe",
    })
}

fn tokens(usage: Option<&Usage>) -> Value {
    json!(usage.map(Tokens::from))
}

fn cut(text: &str) -> String {
    if text.len() <= MOST_BYTES {
        return text.to_owned();
    }
    format!("{}…", text.get(..text.floor_char_boundary(MOST_BYTES)).unwrap_or_default())
}
