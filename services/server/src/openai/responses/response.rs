//! A turn, seen as a Response.

use std::collections::BTreeMap;

use llama_stack_core::ids;
use llama_stack_proto::v1::{
    AgentConfig, ApprovalRequest, HistoryTruncation, Limits, ResponseFormat, Turn, TurnStatus, Usage, response_format::Format,
    step::Step as StepKind,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{echo::Echo, guardrails, items::Item, steps, tools};

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Response {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created_at: i64,
    pub(crate) completed_at: Option<i64>,
    /// `queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
    pub(crate) status: &'static str,
    pub(crate) background: bool,
    pub(crate) error: Option<Value>,
    pub(crate) incomplete_details: Option<Value>,
    pub(crate) instructions: Option<String>,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) max_tool_calls: Option<u32>,
    pub(crate) model: String,
    pub(crate) output: Vec<Item>,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) previous_response_id: Option<String>,
    /// The conversation that it is in, where it was made in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<Value>,
    pub(crate) prompt_cache_key: Option<String>,
    pub(crate) reasoning: Value,
    pub(crate) safety_identifier: Option<String>,
    pub(crate) service_tier: Option<String>,
    pub(crate) store: bool,
    pub(crate) temperature: Option<f32>,
    pub(crate) text: Value,
    pub(crate) tool_choice: Value,
    pub(crate) tools: Vec<Value>,
    pub(crate) top_logprobs: u32,
    pub(crate) top_p: Option<f32>,
    pub(crate) truncation: &'static str,
    pub(crate) usage: Option<Value>,
    pub(crate) user: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_management: Option<Value>,
    /// Not OpenAI's: the agent that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_id: Option<String>,
    /// Not OpenAI's: shields, those of every turn included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guardrails: Option<Vec<Value>>,
    /// Not OpenAI's: how the answer is shown while they judge it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) moderation: Option<Value>,
    /// Not OpenAI's: the bounds that the turn runs with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Value>,
    /// Not OpenAI's: messages of the history that the model was not shown, at most in one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages_left_out: Option<u32>,
}

/// The id under which clients know a turn.
pub(crate) fn response_id(turn_id: &str) -> String {
    turn_id.replacen("turn_", "resp_", 1)
}

/// The turn that a client means.
pub(crate) fn turn_id(response_id: &str) -> String {
    response_id.replacen("resp_", "turn_", 1)
}

/// The id under which clients know a session.
pub(crate) fn conversation_id(session_id: &str) -> String {
    session_id.replacen("session_", "conv_", 1)
}

/// The session that a client means.
pub(crate) fn session_id(conversation_id: &str) -> String {
    conversation_id.replacen("conv_", "session_", 1)
}

/// Whether a turn with this status has ended.
pub(crate) fn is_final(status: TurnStatus) -> bool {
    match status {
        TurnStatus::Completed | TurnStatus::Incomplete | TurnStatus::Failed | TurnStatus::Cancelled => true,
        TurnStatus::Unspecified | TurnStatus::InProgress | TurnStatus::AwaitingTools => false,
    }
}

impl Response {
    /// `approvals`: the calls that the turn waits for, where it waits for decisions.
    pub(crate) fn new(turn: &Turn, approvals: &[ApprovalRequest]) -> Self {
        let default = AgentConfig::default();
        let config = turn.config.as_ref().unwrap_or(&default);
        let echo = Echo::kept(config);
        let limits = config.limits.unwrap_or_default();
        let sampling = config.sampling.clone().unwrap_or_default();
        let rests = !matches!(turn.status(), TurnStatus::InProgress | TurnStatus::Unspecified);
        let previous = Some(turn.parent_turn_id.as_str()).filter(|parent| !parent.is_empty() && !echo.conversation);
        Self {
            id: response_id(&turn.id),
            object: "response",
            created_at: ids::unix_seconds(turn.created.as_ref()),
            completed_at: turn.ended.as_ref().filter(|_| turn.status() == TurnStatus::Completed).map(|ended| ended.seconds),
            status: status(turn.status()),
            background: turn.background,
            error: turn.error.as_ref().map(|error| {
                let code = if error.reason.is_empty() { "server_error" } else { &error.reason };
                json!({ "code": code, "message": error.message })
            }),
            incomplete_details: (turn.status() == TurnStatus::Incomplete).then(|| json!({ "reason": turn.incomplete_reason })),
            instructions: (!config.instructions.is_empty()).then(|| config.instructions.clone()),
            max_output_tokens: (limits.max_tokens > 0).then_some(limits.max_tokens),
            max_tool_calls: (limits.max_tool_calls > 0).then_some(limits.max_tool_calls),
            model: config.model.clone(),
            output: steps::items(turn, approvals, is_final(turn.status())),
            parallel_tool_calls: config.parallel_tool_calls.unwrap_or(true),
            previous_response_id: previous.map(response_id),
            conversation: echo.conversation.then(|| json!({ "id": conversation_id(&turn.session_id) })),
            prompt: serde_json::from_str(&turn.prompt).ok(),
            prompt_cache_key: echo.prompt_cache_key,
            reasoning: json!({
                "effort": (!config.reasoning_effort.is_empty()).then_some(&config.reasoning_effort),
                "summary": echo.reasoning_summary,
            }),
            safety_identifier: echo.safety_identifier,
            service_tier: echo.service_tier,
            store: turn.store,
            temperature: sampling.temperature,
            text: text(config, echo.verbosity),
            tool_choice: tools::show_choice(config),
            tools: tools::show(config, echo.web_search),
            top_logprobs: config.top_logprobs.unwrap_or_default(),
            top_p: sampling.top_p,
            truncation: if config.truncation() == HistoryTruncation::Auto { "auto" } else { "disabled" },
            usage: turn.usage.as_ref().filter(|_| rests).map(|spent| usage(spent, turn.cost)),
            user: echo.user,
            metadata: turn.metadata.clone().into_iter().collect(),
            context_management: (config.compact_threshold > 0)
                .then(|| json!([{ "type": "compaction", "compact_threshold": config.compact_threshold }])),
            agent_id: Some(turn.agent_id.clone()).filter(|id| !id.is_empty()),
            guardrails: guardrails::show(config),
            moderation: guardrails::show_moderation(config),
            limits: config.limits.as_ref().map(bounds),
            messages_left_out: left_out(turn),
        }
    }

    /// As it is told before it runs.
    #[must_use]
    pub(crate) fn queued(self) -> Self {
        Self { status: if self.status == "in_progress" { "queued" } else { self.status }, ..self }
    }
}

fn status(status: TurnStatus) -> &'static str {
    match status {
        TurnStatus::Unspecified | TurnStatus::InProgress => "in_progress",
        // The calls are the answer: the client brings the results in its next response.
        TurnStatus::Completed | TurnStatus::AwaitingTools => "completed",
        TurnStatus::Incomplete => "incomplete",
        TurnStatus::Failed => "failed",
        TurnStatus::Cancelled => "cancelled",
    }
}

/// `cost` is this stack's own, and is there only where models have a price.
pub(crate) fn usage(usage: &Usage, cost: f64) -> Value {
    let mut told = json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens, "cache_write_tokens": 0 },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": usage.total_tokens(),
    });
    if cost > 0.0 {
        told["cost"] = cost.into();
    }
    told
}

pub(crate) fn text(config: &AgentConfig, verbosity: Option<String>) -> Value {
    let mut text = json!({ "format": format(config.response_format.as_ref()) });
    if let Some(verbosity) = verbosity {
        text["verbosity"] = verbosity.into();
    }
    text
}

fn format(format: Option<&ResponseFormat>) -> Value {
    match format.and_then(|format| format.format.as_ref()) {
        None => json!({ "type": "text" }),
        Some(Format::JsonObject(_)) => json!({ "type": "json_object" }),
        Some(Format::JsonSchema(schema)) => json!({
            "type": "json_schema",
            "name": schema.name,
            "schema": tools::parsed(&schema.schema),
            "strict": schema.strict,
            "description": (!schema.description.is_empty()).then_some(&schema.description),
        }),
        Some(Format::Regex(pattern)) => json!({ "type": "regex", "pattern": pattern }),
        Some(Format::Grammar(grammar)) => json!({ "type": "grammar", "grammar": grammar }),
    }
}

/// Those that have a name here and are no field of the Response already.
fn bounds(limits: &Limits) -> Value {
    let counts = [("max_steps", limits.max_steps), ("max_seconds", limits.max_seconds), ("max_depth", limits.max_depth)];
    let counts = counts.into_iter().filter(|(_, bound)| *bound > 0).map(|(name, bound)| (name.to_owned(), bound.into()));
    let mut bounds: Map<String, Value> = counts.collect();
    if limits.max_cost > 0.0 {
        bounds.insert("max_cost".into(), limits.max_cost.into());
    }
    Value::Object(bounds)
}

fn left_out(turn: &Turn) -> Option<u32> {
    let steps = turn.steps.iter().filter_map(|step| match &step.step {
        Some(StepKind::Inference(inference)) => Some(inference.messages_left_out),
        _ => None,
    });
    steps.max().filter(|messages| *messages > 0)
}
