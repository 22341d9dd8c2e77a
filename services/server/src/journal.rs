//! Agents as people look at them: sessions, their turns as a tree, and what a turn did, step by step. Views of `Agents`
//! that OpenAI's API has no form for.
//!
//! ```text
//! GET /v1/conversations              ListSessions
//! GET /v1/conversations/{id}/turns   ListTurns: who continues whom
//! GET /v1/responses/{id}/steps       GetTurn: models, tools, shields, with their times
//! ```

mod steps;

use std::collections::BTreeMap;

use axum::{extract::State, routing::get};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use llama_stack_core::{Code, Error, Result, ids::unix_seconds};
use llama_stack_proto::v1::{GetSessionRequest, GetTurnRequest, ListSessionsRequest, ListTurnsRequest, Session, Turn, TurnStatus, Usage};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openai::{conversation_id, no_conversation, response_id, session_id, turn_id},
    openapi::{Api, Operation, route},
};

/// Of one page.
const MOST: u32 = 100;

/// `/v1/conversations` has a method already, so its list comes with that route.
pub(crate) fn routes(api: &mut Api) {
    api.get(
        route!("/v1/conversations/{id}/turns"),
        get(list_turns),
        Operation::new("The responses of a conversation, oldest first, each with the one that it continues.").returns::<TurnList>(),
    );
    api.get(
        route!("/v1/responses/{id}/steps"),
        get(list_steps),
        Operation::new("What a response did, step by step: models, tools, shields, with their times.").returns::<StepList>(),
    );
}

/// Lists go on with `next_page`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct PageQuery {
    /// 1 to 100. Default 100.
    limit: Option<u32>,
    /// `next_page` of the page before.
    pub(crate) page: Option<String>,
}

impl PageQuery {
    pub(crate) fn limit(&self) -> Result<u32> {
        let limit = self.limit.unwrap_or(MOST);
        if !(1..=MOST).contains(&limit) {
            return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to {MOST}")));
        }
        Ok(limit)
    }
}

/// `None` on the last page.
pub(crate) fn next(token: String) -> Option<String> {
    (!token.is_empty()).then_some(token)
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SessionList {
    object: &'static str,
    data: Vec<SessionObject>,
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SessionObject {
    id: String,
    object: &'static str,
    created_at: i64,
    metadata: BTreeMap<String, String>,
    name: String,
    /// The agent that answers where a response names none.
    agent_id: Option<String>,
}

impl From<Session> for SessionObject {
    fn from(session: Session) -> Self {
        Self {
            id: conversation_id(&session.id),
            object: "conversation",
            created_at: unix_seconds(session.created.as_ref()),
            metadata: session.metadata.into_iter().collect(),
            name: session.name,
            agent_id: next(session.agent_id),
        }
    }
}

pub(crate) async fn list_sessions(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<SessionList>, ApiError> {
    let request = ListSessionsRequest { page_size: query.limit()?, page_token: query.page.unwrap_or_default(), ..Default::default() };
    let page = state.agents.list_sessions(&cx, request).await?;
    let data = page.sessions.into_iter().map(SessionObject::from).collect();
    Ok(Json(SessionList { object: "list", data, next_page: next(page.next_page_token) }))
}

#[derive(Debug, Serialize, JsonSchema)]
struct TurnList {
    object: &'static str,
    data: Vec<TurnObject>,
    next_page: Option<String>,
}

/// A response, as a branch of its conversation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ConversationTurn")]
struct TurnObject {
    id: String,
    object: &'static str,
    /// The response that it continues. Null: it begins a history.
    previous_response_id: Option<String>,
    /// Of the turn: `awaiting_tools` where a client's results or decisions are wanted.
    status: String,
    created_at: i64,
    model: String,
    agent_id: Option<String>,
    /// What was asked.
    input: String,
    /// What was answered.
    output: String,
    usage: Tokens,
    steps: usize,
    /// No model was asked: items were added by hand.
    append_only: bool,
    /// The response whose tool call this one answers.
    caller_response_id: Option<String>,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "StepTokens")]
struct Tokens {
    input: u32,
    cached: u32,
    output: u32,
}

impl From<&Usage> for Tokens {
    fn from(usage: &Usage) -> Self {
        Self { input: usage.prompt_tokens, cached: usage.cached_tokens, output: usage.completion_tokens }
    }
}

fn word(status: TurnStatus) -> String {
    status.as_str_name().trim_start_matches("TURN_STATUS_").to_lowercase()
}

impl From<Turn> for TurnObject {
    fn from(turn: Turn) -> Self {
        let some = |id: &str| (!id.is_empty()).then(|| response_id(id));
        let joined = |texts: Vec<String>| texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
        Self {
            id: response_id(&turn.id),
            object: "conversation.turn",
            previous_response_id: some(&turn.parent_turn_id),
            status: word(turn.status()),
            created_at: unix_seconds(turn.created.as_ref()),
            model: turn.config.as_ref().map(|config| config.model.clone()).unwrap_or_default(),
            input: joined(turn.input.iter().map(|message| message.joined_text()).collect()),
            output: joined(turn.steps.iter().map(steps::said).collect()),
            usage: turn.usage.as_ref().map(Tokens::from).unwrap_or_default(),
            steps: turn.steps.len(),
            append_only: turn.append_only,
            caller_response_id: some(&turn.caller_turn_id),
            agent_id: next(turn.agent_id),
        }
    }
}

async fn list_turns(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<TurnList>, ApiError> {
    let session = state.agents.get_session(&cx, GetSessionRequest { id: session_id(&id) }).await;
    let session_id = session.map_err(|error| no_conversation(error, &id))?.id;
    let (page_size, page_token) = (query.limit()?, query.page.unwrap_or_default());
    let request = ListTurnsRequest { session_id, page_size, page_token, ..Default::default() };
    let page = state.agents.list_turns(&cx, request).await?;
    let data = page.turns.into_iter().map(TurnObject::from).collect();
    Ok(Json(TurnList { object: "list", data, next_page: next(page.next_page_token) }))
}

#[derive(Debug, Serialize, JsonSchema)]
struct StepList {
    object: &'static str,
    /// The conversation that the response is in.
    conversation_id: String,
    /// Of the turn: `awaiting_tools` where a client's results or decisions are wanted.
    status: String,
    /// Milliseconds since the epoch.
    created_ms: i64,
    ended_ms: Option<i64>,
    usage: Tokens,
    /// By the manifest's price table.
    cost: f64,
    error: Option<String>,
    data: Vec<Value>,
}

async fn list_steps(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<StepList>, ApiError> {
    let found = state.agents.get_turn(&cx, GetTurnRequest { id: turn_id(&id) }).await;
    let turn = found.map_err(|error| match error.code() {
        Code::NotFound => Error::not_found(format!("no response {id:?}")).with_reason("response_not_found"),
        _ => error,
    })?;
    let data = turn.steps.iter().map(|step| steps::shown(step, &turn)).collect();
    Ok(Json(StepList {
        object: "list",
        conversation_id: conversation_id(&turn.session_id),
        status: word(turn.status()),
        created_ms: steps::milliseconds(turn.created.as_ref()).unwrap_or_default(),
        ended_ms: steps::milliseconds(turn.ended.as_ref()),
        usage: turn.usage.as_ref().map(Tokens::from).unwrap_or_default(),
        cost: turn.cost,
        error: turn.error.map(|error| error.message),
        data,
    }))
}
