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
//! What the contract has more of (MCP servers, client tools, response formats) is set over gRPC, and an update here leaves it.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, Query, State},
    routing::get,
};
use llama_stack_core::{Context, Error, Result, ids::unix_seconds};
use llama_stack_proto::v1::{
    Agent, AgentConfig, CreateAgentRequest, DeleteAgentRequest, FileSearch, GetAgentRequest, ListAgentsRequest, UpdateAgentRequest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json},
    journal::{PageQuery, next},
    openai::vector_stores::{bank_id, ids::store_id},
    openapi::{Api, Operation},
};

pub(crate) fn routes(api: &mut Api) {
    let (all, one) = ("/v1/agents", "/v1/agents/{id}");
    api.get(all, get(list).post(create), Operation::new("The agents of this stack, newest first.").returns::<AgentList>());
    api.describe(all, "post", Operation::new("Keeps an agent; `model` is required.").takes::<AgentFields>().returns::<AgentObject>());
    api.get(one, get(retrieve).post(update).delete(delete), Operation::new("An agent.").returns::<AgentObject>());
    api.describe(one, "post", Operation::new("Changes the fields that are given.").takes::<AgentFields>().returns::<AgentObject>());
    api.describe(one, "delete", Operation::new("Deletes an agent; its sessions stay readable.").returns::<Deleted>());
}

/// What is written of an agent. A field that is left out stays as it is; in a new agent it is empty.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AgentFields {
    /// A chat model of this stack.
    model: Option<String>,
    name: Option<String>,
    /// When to call it, for agents that may.
    description: Option<String>,
    /// The system message.
    instructions: Option<String>,
    /// Tools of this stack, by name.
    tools: Option<Vec<String>>,
    /// Which of `tools` wait for a person's approval before each call.
    require_approval: Option<Vec<String>>,
    /// Vector stores that it may search. Empty: none.
    vector_store_ids: Option<Vec<String>>,
    input_shields: Option<Vec<String>>,
    output_shields: Option<Vec<String>>,
    tool_argument_shields: Option<Vec<String>>,
    tool_result_shields: Option<Vec<String>>,
    retrieved_shields: Option<Vec<String>>,
    /// Null: the model's own.
    #[serde(deserialize_with = "given")]
    temperature: Option<Option<f32>>,
    /// Null: the model's own.
    #[serde(deserialize_with = "given")]
    top_p: Option<Option<f32>>,
    /// Of each answer of the model. Null: what its context leaves.
    #[serde(deserialize_with = "given")]
    max_output_tokens: Option<Option<u32>>,
    metadata: Option<BTreeMap<String, String>>,
}

/// Tells what is null from what is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl AgentFields {
    fn apply(self, config: &mut AgentConfig) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut config.model, self.model);
        set(&mut config.name, self.name);
        set(&mut config.description, self.description);
        set(&mut config.instructions, self.instructions);
        set(&mut config.tools, self.tools);
        set(&mut config.require_approval, self.require_approval);
        set(&mut config.input_shields, self.input_shields);
        set(&mut config.output_shields, self.output_shields);
        set(&mut config.tool_argument_shields, self.tool_argument_shields);
        set(&mut config.tool_result_shields, self.tool_result_shields);
        set(&mut config.retrieved_shields, self.retrieved_shields);
        set(&mut config.metadata, self.metadata.map(|metadata| metadata.into_iter().collect()));
        let sampling = config.sampling.get_or_insert_default();
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.max_tokens, self.max_output_tokens);
        match self.vector_store_ids {
            None => {}
            Some(ids) if ids.is_empty() => config.file_search = None,
            Some(ids) => {
                let search = config.file_search.get_or_insert_with(FileSearch::default);
                search.bank_ids = ids.iter().map(|id| bank_id(id)).collect();
            }
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct AgentList {
    object: &'static str,
    data: Vec<AgentObject>,
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Agent")]
struct AgentObject {
    id: String,
    object: &'static str,
    /// 0: from the manifest.
    created_at: i64,
    /// Of the manifest: changed there, and by no call.
    declared: bool,
    name: String,
    description: String,
    model: String,
    instructions: String,
    tools: Vec<String>,
    require_approval: Vec<String>,
    vector_store_ids: Vec<String>,
    input_shields: Vec<String>,
    output_shields: Vec<String>,
    tool_argument_shields: Vec<String>,
    tool_result_shields: Vec<String>,
    retrieved_shields: Vec<String>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    max_output_tokens: Option<u32>,
    metadata: BTreeMap<String, String>,
}

impl From<Agent> for AgentObject {
    fn from(agent: Agent) -> Self {
        let config = agent.config.unwrap_or_default();
        let sampling = config.sampling.unwrap_or_default();
        let banks = config.file_search.unwrap_or_default().bank_ids;
        Self {
            id: agent.id,
            object: "agent",
            created_at: unix_seconds(agent.created.as_ref()),
            declared: agent.created.is_none(),
            name: config.name,
            description: config.description,
            model: config.model,
            instructions: config.instructions,
            tools: config.tools,
            require_approval: config.require_approval,
            vector_store_ids: banks.iter().map(|id| store_id(id)).collect(),
            input_shields: config.input_shields,
            output_shields: config.output_shields,
            tool_argument_shields: config.tool_argument_shields,
            tool_result_shields: config.tool_result_shields,
            retrieved_shields: config.retrieved_shields,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_output_tokens: sampling.max_tokens,
            metadata: config.metadata.into_iter().collect(),
        }
    }
}

/// The contract has these fields in messages of their own.
fn renamed(error: Error) -> Error {
    let Some(field) = error.field().and_then(|field| field.strip_prefix("config.")) else { return error };
    let field = field.strip_prefix("sampling.").unwrap_or(field);
    let field = field.replacen("file_search.bank_ids", "vector_store_ids", 1).replacen("max_tokens", "max_output_tokens", 1);
    let message = error.message().replace("config.sampling.", "").replace("config.", "");
    let told = Error::new(error.code(), message).with_field(field);
    match error.reason() {
        Some(reason) => told.with_reason(reason),
        None => told,
    }
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
    fields.apply(&mut config);
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
    fields.apply(&mut config);
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
