//! A turn, seen as a Response.

use std::collections::BTreeMap;

use llama_stack_core::ids;
use llama_stack_proto::v1::{
    AgentConfig, ResponseFormat, ToolChoice, Turn, TurnStatus, Usage, response_format::Format, step::Step as StepKind, tool_choice::Mode,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    items::Item,
    output::{self, Writer},
};

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Response {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created_at: i64,
    /// `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
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
    pub(crate) reasoning: Value,
    pub(crate) store: bool,
    pub(crate) temperature: Option<f32>,
    pub(crate) text: Value,
    pub(crate) tool_choice: Value,
    pub(crate) tools: Vec<Value>,
    pub(crate) top_logprobs: u32,
    pub(crate) top_p: Option<f32>,
    pub(crate) truncation: &'static str,
    pub(crate) usage: Option<Value>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The id under which clients know a turn.
pub(crate) fn response_id(turn_id: &str) -> String {
    turn_id.replacen("turn_", "resp_", 1)
}

/// The turn that a client means.
pub(crate) fn turn_id(response_id: &str) -> String {
    response_id.replacen("resp_", "turn_", 1)
}

impl Response {
    pub(crate) fn new(turn: &Turn) -> Self {
        let default = AgentConfig::default();
        let config = turn.config.as_ref().unwrap_or(&default);
        let limits = config.limits.unwrap_or_default();
        let sampling = config.sampling.clone().unwrap_or_default();
        let ended = !matches!(turn.status(), TurnStatus::InProgress | TurnStatus::Unspecified);
        Self {
            id: response_id(&turn.id),
            object: "response",
            created_at: ids::unix_seconds(turn.created.as_ref()),
            status: status(turn.status()),
            background: false,
            error: turn.error.as_ref().map(|error| {
                let code = if error.reason.is_empty() { "server_error" } else { &error.reason };
                json!({ "code": code, "message": error.message })
            }),
            incomplete_details: (turn.status() == TurnStatus::Incomplete).then(|| json!({ "reason": turn.incomplete_reason })),
            instructions: (!config.instructions.is_empty()).then(|| config.instructions.clone()),
            max_output_tokens: (limits.max_tokens > 0).then_some(limits.max_tokens),
            max_tool_calls: (limits.max_tool_calls > 0).then_some(limits.max_tool_calls),
            model: config.model.clone(),
            output: output(turn),
            parallel_tool_calls: config.parallel_tool_calls.unwrap_or(true),
            previous_response_id: (!turn.parent_turn_id.is_empty()).then(|| response_id(&turn.parent_turn_id)),
            reasoning: json!({
                "effort": (!config.reasoning_effort.is_empty()).then_some(&config.reasoning_effort),
                "summary": null,
            }),
            store: turn.store,
            temperature: sampling.temperature,
            text: json!({ "format": format(config.response_format.as_ref()) }),
            tool_choice: tool_choice(config.tool_choice.as_ref()),
            tools: config.client_tools.iter().map(tool).collect(),
            top_logprobs: config.top_logprobs.unwrap_or_default(),
            top_p: sampling.top_p,
            truncation: "disabled",
            usage: turn.usage.as_ref().filter(|_| ended).map(usage),
            metadata: turn.metadata.clone().into_iter().collect(),
        }
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

fn output(turn: &Turn) -> Vec<Item> {
    let mut items = Vec::new();
    for step in &turn.steps {
        if let Some(StepKind::Inference(inference)) = &step.step {
            let mut writer = Writer::new(&step.id, items.len());
            writer.whole(inference, &mut None);
            items.extend(writer.finish(output::status(inference), &mut None));
        }
    }
    items
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens, "cache_write_tokens": 0 },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": usage.total_tokens(),
    })
}

fn format(format: Option<&ResponseFormat>) -> Value {
    match format.and_then(|format| format.format.as_ref()) {
        None => json!({ "type": "text" }),
        Some(Format::JsonObject(_)) => json!({ "type": "json_object" }),
        Some(Format::JsonSchema(schema)) => json!({
            "type": "json_schema",
            "name": schema.name,
            "schema": parsed(&schema.schema),
            "strict": schema.strict,
            "description": (!schema.description.is_empty()).then_some(&schema.description),
        }),
        Some(Format::Regex(pattern)) => json!({ "type": "regex", "pattern": pattern }),
        Some(Format::Grammar(grammar)) => json!({ "type": "grammar", "grammar": grammar }),
    }
}

fn tool_choice(choice: Option<&ToolChoice>) -> Value {
    match choice.map(|choice| (choice.mode(), &choice.name)) {
        Some((Mode::None, _)) => json!("none"),
        Some((Mode::Required, _)) => json!("required"),
        Some((Mode::Named, name)) => json!({ "type": "function", "name": name }),
        Some((Mode::Auto | Mode::Unspecified, _)) | None => json!("auto"),
    }
}

fn tool(tool: &llama_stack_proto::v1::ToolDefinition) -> Value {
    json!({
        "type": "function",
        "name": tool.name,
        "description": (!tool.description.is_empty()).then_some(&tool.description),
        "parameters": parsed(&tool.parameters),
        "strict": tool.strict,
    })
}

/// A schema was JSON when it came; an empty one is none.
fn parsed(schema: &str) -> Value {
    serde_json::from_str(schema).unwrap_or(Value::Null)
}
