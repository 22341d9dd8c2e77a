//! `guardrails` and `moderation`, which are not OpenAI's: which shields judge what, and when an answer is shown meanwhile.

use llama_stack_core::{Error, Result, manifest::DefaultShields};
use llama_stack_proto::v1::{AgentConfig, OutputModeration, output_moderation::Mode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// As the manifest and `stages` name them.
const STAGES: [&str; 5] = ["input", "tool_arguments", "tool_results", "retrieved", "output"];
/// Of a guardrail that names none.
const USUAL: [&str; 2] = ["input", "output"];

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Moderation {
    /// `held`, `windowed` or `after`.
    mode: String,
    /// With `windowed`: 1 to 1,024 tokens; 64 unless it is said.
    window_tokens: Option<u32>,
}

/// Shields by what they judge: each guardrail is an id, or `{id, stages}`.
///
/// # Errors
/// `InvalidArgument`, with the path of the field.
pub(super) fn read(guardrails: &[Value]) -> Result<DefaultShields> {
    let mut shields = DefaultShields::default();
    for (index, guardrail) in guardrails.iter().enumerate() {
        let id = guardrail.as_str().or_else(|| guardrail.get("id")?.as_str()).or_else(|| guardrail.get("type")?.as_str());
        let wrong =
            || Error::invalid(format!("guardrails[{index}]"), "a guardrail must be the id of a shield, or {\"id\": …, \"stages\": […]}");
        let id = id.ok_or_else(wrong)?;
        for stage in stages(guardrail, index)? {
            let list = match stage {
                "input" => &mut shields.input,
                "tool_arguments" => &mut shields.tool_arguments,
                "tool_results" => &mut shields.tool_results,
                "retrieved" => &mut shields.retrieved,
                _ => &mut shields.output,
            };
            list.push(id.to_owned());
        }
    }
    Ok(shields)
}

/// A configuration that adds these to an agent's.
///
/// # Errors
/// As [`read`].
pub(super) fn beside_agent(guardrails: &[Value]) -> Result<AgentConfig> {
    let shields = read(guardrails)?;
    Ok(AgentConfig {
        input_shields: shields.input,
        tool_argument_shields: shields.tool_arguments,
        tool_result_shields: shields.tool_results,
        retrieved_shields: shields.retrieved,
        output_shields: shields.output,
        ..AgentConfig::default()
    })
}

fn stages(guardrail: &Value, index: usize) -> Result<Vec<&'static str>> {
    let Some(given) = guardrail.get("stages").filter(|stages| !stages.is_null()) else { return Ok(USUAL.to_vec()) };
    let wrong = || {
        let message = format!("stages must be a list of at least one of {}", STAGES.join(", "));
        Error::invalid(format!("guardrails[{index}].stages"), message)
    };
    let given = given.as_array().filter(|stages| !stages.is_empty()).ok_or_else(wrong)?;
    given.iter().map(|stage| STAGES.into_iter().find(|known| stage.as_str() == Some(known)).ok_or_else(wrong)).collect()
}

/// # Errors
/// `InvalidArgument`, with the path of the field.
pub(crate) fn moderation(given: &Moderation) -> Result<OutputModeration> {
    let mode = match given.mode.as_str() {
        "held" => Mode::Held,
        "windowed" => Mode::Windowed,
        "after" => Mode::After,
        _ => return Err(Error::invalid("moderation.mode", "moderation.mode must be \"held\", \"windowed\" or \"after\"")),
    };
    let in_range = given.window_tokens.is_none_or(|tokens| (1..=1_024).contains(&tokens));
    if !in_range || given.window_tokens.is_some() && mode != Mode::Windowed {
        let message = "moderation.window_tokens must be 1 to 1024, and goes with the mode \"windowed\" only";
        return Err(Error::invalid("moderation.window_tokens", message));
    }
    Ok(OutputModeration { mode: mode.into(), window_tokens: given.window_tokens.unwrap_or_default() })
}

/// The shields of a turn, those of the manifest included: ids, where they judge what is usual, else with their stages.
pub(super) fn show(config: &AgentConfig) -> Option<Vec<Value>> {
    let lists = [
        &config.input_shields,
        &config.tool_argument_shields,
        &config.tool_result_shields,
        &config.retrieved_shields,
        &config.output_shields,
    ];
    let mut ids: Vec<&String> = Vec::new();
    for id in lists.into_iter().flatten() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let told = |id: &String| {
        let stages: Vec<&str> = STAGES.into_iter().zip(lists).filter(|(_, list)| list.contains(id)).map(|(stage, _)| stage).collect();
        if stages == USUAL { json!(id) } else { json!({ "id": id, "stages": stages }) }
    };
    (!ids.is_empty()).then(|| ids.into_iter().map(told).collect())
}

/// How the answer is shown; `None` where nobody judges it, or nothing was said of it.
pub(super) fn show_moderation(config: &AgentConfig) -> Option<Value> {
    config.output_moderation.filter(|_| !config.output_shields.is_empty()).map(told)
}

pub(crate) fn told(moderation: OutputModeration) -> Value {
    match moderation.mode() {
        Mode::Unspecified | Mode::Held => json!({ "mode": "held" }),
        Mode::After => json!({ "mode": "after" }),
        Mode::Windowed => {
            let tokens = if moderation.window_tokens == 0 { 64 } else { moderation.window_tokens };
            json!({ "mode": "windowed", "window_tokens": tokens })
        }
    }
}
