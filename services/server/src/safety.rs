//! Shields over HTTP in the form of the classic Llama Stack: a view of `Safety`.

use std::collections::HashMap;

use axum::{
    extract::State,
    routing::{get, post},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, Message, Role, RunShieldRequest, RunShieldResponse, Shield, ShieldStage, violation::Level,
};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path},
    openai::chat::RequestMessage,
    openapi::{Api, Operation, route},
};

pub(crate) fn routes(api: &mut Api) {
    api.get(route!("/v1/shields"), get(list), Operation::new("The shields that texts can be judged by.").returns::<ShieldList>());
    api.get(route!("/v1/shields/{*identifier}"), get(retrieve), Operation::new("One shield.").returns::<ShieldObject>());
    let operation = Operation::new("Judges the last message of a conversation.").takes::<RunShield>().returns::<RunShieldAnswer>();
    api.post(route!("/v1/safety/run-shield"), post(run), operation);
}

#[derive(Serialize, JsonSchema)]
struct ShieldList {
    data: Vec<ShieldObject>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Shield")]
struct ShieldObject {
    identifier: String,
    provider_id: String,
    /// The shield's name at its provider, or the model that it asks.
    provider_resource_id: String,
    r#type: &'static str,
    /// What else is known: description, stages, categories, threshold.
    params: Map<String, Value>,
}

#[derive(Deserialize, JsonSchema)]
struct RunShield {
    shield_id: String,
    /// Oldest first; the last is judged.
    messages: Vec<RequestMessage>,
    #[serde(default)]
    params: Option<Params>,
}

/// Further ones are passed over, as classic clients send what shields of theirs took.
#[derive(Default, Deserialize, JsonSchema)]
#[schemars(rename = "RunShieldParams")]
struct Params {
    /// `input`, `tool_arguments`, `tool_result`, `retrieved` or `output`. Default: as the last message's role says.
    stage: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct RunShieldAnswer {
    /// Null: nothing wrong.
    violation: Option<SafetyViolation>,
    /// Not the classic's, as all that follows: every category that was scored, violated or not.
    #[serde(skip_serializing_if = "Map::is_empty")]
    scores: Map<String, Value>,
    /// What to use in place of the text, where the shield takes out what it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted: Option<String>,
    /// What was found where: `{code, start, end, detail}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Value>,
    /// Scores are 0 or 1 by the shield's words alone: its model's server told no probabilities.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unscored: bool,
}

#[derive(Serialize, JsonSchema)]
struct SafetyViolation {
    /// `info`, `warn` or `error`.
    violation_level: &'static str,
    /// What the end user may be told.
    user_message: String,
    /// `violation_type` (the codes), `reason`, `scores`, and where a shield tells them `findings`.
    metadata: Map<String, Value>,
}

impl From<Shield> for ShieldObject {
    fn from(shield: Shield) -> Self {
        let stages: Vec<String> = shield.stages().map(word).collect();
        let mut params = Map::new();
        let categories: Vec<Value> =
            shield.categories.iter().map(|category| json!({ "code": category.code, "name": category.name })).collect();
        let entries = [
            ("description", Value::from(shield.description), true),
            ("provider_type", shield.provider_type.into(), true),
            ("stages", stages.into(), true),
            ("categories", categories.into(), true),
            ("threshold", shield.threshold.into(), shield.threshold > 0.0),
        ];
        for (name, value, _) in entries.into_iter().filter(|(_, value, told)| *told && *value != json!("") && *value != json!([])) {
            params.insert(name.into(), value);
        }
        let provider_resource_id = if shield.model.is_empty() { shield.id.clone() } else { shield.model };
        Self { identifier: shield.id, provider_id: shield.provider_id, provider_resource_id, r#type: "shield", params }
    }
}

fn word(stage: ShieldStage) -> String {
    stage.as_str_name().trim_start_matches("SHIELD_STAGE_").to_lowercase()
}

fn stage(params: &Params, last: Option<&Message>) -> Result<ShieldStage> {
    let Some(named) = &params.stage else {
        return Ok(match last.map(Message::role) {
            Some(Role::Assistant) => ShieldStage::Output,
            Some(Role::Tool) => ShieldStage::ToolResult,
            _ => ShieldStage::Input,
        });
    };
    // As manifests and guardrails write them, too.
    let word = named.replace('-', "_").replace("tool_results", "tool_result");
    let found = ShieldStage::from_str_name(&format!("SHIELD_STAGE_{}", word.to_uppercase()));
    found.filter(|stage| *stage != ShieldStage::Unspecified).ok_or_else(|| {
        let what = "is none of input, tool_arguments, tool_result, retrieved, output";
        Error::invalid("params.stage", format!("params.stage: {named:?} {what}"))
    })
}

impl From<RunShieldResponse> for RunShieldAnswer {
    fn from(response: RunShieldResponse) -> Self {
        let RunShieldResponse { violation, scores, findings, redacted, unscored, .. } = response;
        let scores: Map<String, Value> = scores.into_iter().map(|score| (score.code, score.score.into())).collect();
        let told =
            findings.iter().map(|found| json!({ "code": found.code, "start": found.start, "end": found.end, "detail": found.detail }));
        let findings: Vec<Value> = told.collect();
        let violation = violation.map(|violation| {
            let mut metadata = Map::new();
            metadata.insert("violation_type".into(), violation.categories.join(",").into());
            metadata.insert("reason".into(), violation.reason.clone().into());
            metadata.insert("scores".into(), scores.clone().into());
            if !findings.is_empty() {
                metadata.insert("findings".into(), findings.clone().into());
            }
            let violation_level = if violation.level() == Level::Warn { "warn" } else { "error" };
            SafetyViolation { violation_level, user_message: violation.user_message, metadata }
        });
        Self { violation, scores, redacted: redacted.map(|message| message.joined_text()), findings, unscored }
    }
}

async fn list(State(state): State<AppState>, Caller(cx): Caller) -> Result<Json<ShieldList>, ApiError> {
    let (mut data, mut request) = (Vec::new(), ListShieldsRequest::default());
    loop {
        let page = cx.within(state.safety.list_shields(&cx, request.clone())).await?;
        data.extend(page.shields.into_iter().map(ShieldObject::from));
        if page.next_page_token.is_empty() {
            return Ok(Json(ShieldList { data }));
        }
        request.page_token = page.next_page_token;
    }
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<ShieldObject>, ApiError> {
    Ok(Json(cx.within(state.safety.get_shield(&cx, GetShieldRequest { id })).await?.into()))
}

async fn run(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<RunShield>) -> Result<Json<RunShieldAnswer>, ApiError> {
    let mut names = HashMap::new();
    let messages = body.messages.into_iter().enumerate().map(|(index, message)| message.into_proto(index, &mut names));
    let messages = messages.collect::<Result<Vec<Message>>>()?;
    let stage = stage(&body.params.unwrap_or_default(), messages.last())?;
    let request = RunShieldRequest { shield_id: body.shield_id, messages, stage: stage.into(), ..Default::default() };
    Ok(Json(cx.within(state.safety.run_shield(&cx, request)).await?.into()))
}
