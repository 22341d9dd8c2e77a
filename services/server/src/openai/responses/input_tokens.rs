//! `/v1/responses/input_tokens`: how many tokens the model would read, by its own tokenizer and template.

use axum::extract::State;
use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{CreateTurnRequest, Message, TokenizeRequest, tool_choice::Mode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    begin,
    request::CreateResponse,
    tools::{self, absent},
};
use crate::http::{ApiError, AppState, Caller, Json};

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CountedTokens {
    object: &'static str,
    input_tokens: u64,
}

pub(super) async fn count(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CreateResponse>,
) -> Result<Json<CountedTokens>, ApiError> {
    brings_all(&body)?;
    let kinds = tools::kinds(body.tools.as_deref().unwrap_or_default());
    let turn = begin::turn(&state, &cx, body).await?;
    if let Some((kind, place)) = kinds.iter().find(|(kind, _)| kind != "function") {
        return Err(absent(format!("{place}.type"), format!("what a tool of type {kind:?} adds is known once a response has begun")).into());
    }
    let input_tokens = cx.within(tokens(&state, &cx, turn)).await?;
    Ok(Json(CountedTokens { object: "response.input_tokens", input_tokens }))
}

/// What is counted is in the request: histories and agents are the runtime's to read.
fn brings_all(body: &CreateResponse) -> Result<()> {
    let elsewhere = [
        ("previous_response_id", body.previous_response_id.is_some()),
        ("conversation", body.conversation.as_ref().is_some_and(|conversation| !conversation.is_null())),
        ("agent_id", body.agent_id.is_some()),
    ];
    match elsewhere.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => Err(absent((*field).into(), format!("{field} is not supported here: bring what is to be counted in input"))),
    }
}

async fn tokens(state: &AppState, cx: &Context, turn: CreateTurnRequest) -> Result<u64> {
    let config = turn.config.unwrap_or_default();
    let mut messages = Vec::new();
    if !config.instructions.is_empty() {
        messages.push(Message::system(config.instructions));
    }
    messages.extend(turn.input);
    if messages.is_empty() {
        return Err(Error::invalid("input", "there is nothing to count"));
    }
    // Tools that may not be called are not shown to a model.
    let hidden = config.tool_choice.as_ref().is_some_and(|choice| choice.mode() == Mode::None);
    let tools = if hidden { Vec::new() } else { config.client_tools };
    let request = TokenizeRequest { model: config.model, messages, tools, ..TokenizeRequest::default() };
    let counted = state.inference.tokenize(cx, request).await.map_err(renamed)?;
    Ok(counted.tokens.len() as u64)
}

fn renamed(error: Error) -> Error {
    if error.code() == Code::Unimplemented {
        return absent("model".into(), "the provider of this model does not count tokens".into()).with_source(error);
    }
    if error.field().is_some_and(|field| field.starts_with("messages")) { error.with_field("input") } else { error }
}
