//! `/v1/agents`: agents that are kept, and those of the manifest.
//!
//! ```text
//! GET    /v1/agents        ListAgents
//! POST   /v1/agents        CreateAgent
//! GET    /v1/agents/{id}   GetAgent
//! POST   /v1/agents/{id}   GetAgent, UpdateAgent: only the fields that are there
//! DELETE /v1/agents/{id}   DeleteAgent
//! ```
//!
//! What the contract has more of (seeds, grammars, how a search is made) is set over gRPC, and an update here leaves it.

mod fields;

use axum::{extract::State, routing::get};
use llama_stack_core::{Context, Result};
use llama_stack_proto::v1::{
    Agent, AgentConfig, CreateAgentRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest, UpdateAgentRequest,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    journal::{PageQuery, next},
    openapi::{Api, Operation, route},
};
use fields::{AgentFields, AgentObject, renamed};

pub(crate) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/agents"), route!("/v1/agents/{id}"));
    api.get(all, get(list).post(create), Operation::new("The agents of this stack, newest first.").returns::<AgentList>());
    api.describe(all, "post", Operation::new("Keeps an agent; `model` is required.").takes::<AgentFields>().returns::<AgentObject>());
    api.get(one, get(retrieve).post(update).delete(delete), Operation::new("An agent.").returns::<AgentObject>());
    api.describe(one, "post", Operation::new("Changes the fields that are given.").takes::<AgentFields>().returns::<AgentObject>());
    api.describe(one, "delete", Operation::new("Deletes an agent; its sessions stay readable.").returns::<Deleted>());
}

#[derive(Debug, Serialize, JsonSchema)]
struct AgentList {
    object: &'static str,
    data: Vec<AgentObject>,
    next_page: Option<String>,
}

async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<PageQuery>) -> Result<Json<AgentList>, ApiError> {
    let request = ListAgentsRequest { page_size: query.limit()?, page_token: query.page.unwrap_or_default() };
    let page = state.agents.list_agents(&cx, request).await?;
    let data = page.agents.into_iter().map(AgentObject::from).collect();
    Ok(Json(AgentList { object: "list", data, next_page: next(page.next_page_token) }))
}

async fn find(state: &AppState, cx: &Context, id: String) -> Result<Agent> {
    state.agents.get_agent(cx, GetAgentRequest { id }).await
}

async fn create(State(state): State<AppState>, Caller(cx): Caller, Json(fields): Json<AgentFields>) -> Result<Json<AgentObject>, ApiError> {
    let mut config = AgentConfig::default();
    fields.apply(&mut config)?;
    let made = state.agents.create_agent(&cx, CreateAgentRequest { config: Some(config) }).await;
    Ok(Json(made.map_err(renamed)?.into()))
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<AgentObject>, ApiError> {
    Ok(Json(find(&state, &cx, id).await?.into()))
}

async fn update(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(fields): Json<AgentFields>,
) -> Result<Json<AgentObject>, ApiError> {
    let agent = find(&state, &cx, id).await?;
    let mut config = agent.config.unwrap_or_default();
    fields.apply(&mut config)?;
    let updated = state.agents.update_agent(&cx, UpdateAgentRequest { id: agent.id, config: Some(config) }).await;
    Ok(Json(updated.map_err(renamed)?.into()))
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AgentDeleted")]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    state.agents.delete_agent(&cx, DeleteAgentRequest { id: id.clone() }).await?;
    Ok(Json(Deleted { id, object: "agent.deleted", deleted: true }))
}
