//! What is written and read of an agent: the forms are those of a Response, where it has the same.

use std::collections::BTreeMap;

use llama_stack_core::{Error, Result, ids::unix_seconds};
use llama_stack_proto::v1::{Agent, AgentConfig, AgentTool, FileSearch, HistoryTruncation, Limits};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::openai::{
    responses::{
        guardrails::{self, Moderation},
        request::{self, TextOptions},
        response,
        tools::{self, Tools},
    },
    vector_stores::{bank_id, ids::store_id},
};

/// What is written of an agent. A field that is left out stays as it is; in a new agent it is empty.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AgentFields {
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
    /// Functions that the client runs, as a Response has them.
    functions: Option<Vec<Value>>,
    /// MCP servers whose tools it may call, as a Response has them, but without secrets.
    mcp_servers: Option<Vec<Value>>,
    /// Agents that it may call, or hand over to.
    agents: Option<Vec<CalledAgent>>,
    /// As a Response has it. Null: the model chooses.
    #[serde(deserialize_with = "given")]
    tool_choice: Option<Option<Value>>,
    /// Null: the model's own.
    #[serde(deserialize_with = "given")]
    parallel_tool_calls: Option<Option<bool>>,
    /// Vector stores that it may search. Empty: none.
    vector_store_ids: Option<Vec<String>>,
    input_shields: Option<Vec<String>>,
    output_shields: Option<Vec<String>>,
    tool_argument_shields: Option<Vec<String>>,
    tool_result_shields: Option<Vec<String>>,
    retrieved_shields: Option<Vec<String>>,
    /// How the answer is shown while output shields judge it. Null: held.
    #[serde(deserialize_with = "given")]
    moderation: Option<Option<Moderation>>,
    /// Bounds on each turn. Null: the stack's.
    #[serde(deserialize_with = "given")]
    limits: Option<Option<Bounds>>,
    /// `auto` or `disabled`.
    truncation: Option<String>,
    /// Tokens of history above which it is summarised. Null or 0: never.
    #[serde(deserialize_with = "given")]
    compact_threshold: Option<Option<u32>>,
    /// What the answer must look like. Null: text.
    #[serde(deserialize_with = "given")]
    text: Option<Option<TextOptions>>,
    /// Null: the model's own.
    #[serde(deserialize_with = "given")]
    reasoning_effort: Option<Option<String>>,
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

/// Another agent, as a tool of this one.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CalledAgent {
    agent_id: String,
    /// The tool's name. Empty: made from the agent's name.
    #[serde(default)]
    name: String,
    /// When to call it. Empty: the agent's description.
    #[serde(default)]
    description: String,
    /// The other agent takes over the rest of the turn.
    #[serde(default)]
    handoff: bool,
}

/// 0: the stack's own, or no bound.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AgentLimits")]
struct Bounds {
    max_steps: u32,
    /// Generated tokens over all steps.
    max_tokens: u32,
    max_seconds: u32,
    max_tool_calls: u32,
    max_cost: f64,
    max_depth: u32,
}

/// Tells what is null from what is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

impl AgentFields {
    /// # Errors
    /// `InvalidArgument`, with the path of the field · `Unimplemented`
    pub(super) fn apply(self, config: &mut AgentConfig) -> Result<()> {
        set(&mut config.model, self.model);
        set(&mut config.name, self.name);
        set(&mut config.description, self.description);
        set(&mut config.instructions, self.instructions);
        set(&mut config.tools, self.tools);
        set(&mut config.require_approval, self.require_approval);
        set(&mut config.client_tools, self.functions.map(|tools| read("functions", &tools, tools::function)).transpose()?);
        set(&mut config.mcp_servers, self.mcp_servers.map(|tools| read("mcp_servers", &tools, tools::server)).transpose()?);
        set(&mut config.agents, self.agents.map(|agents| agents.into_iter().map(AgentTool::from).collect()));
        set(&mut config.parallel_tool_calls, self.parallel_tool_calls);
        set(&mut config.input_shields, self.input_shields);
        set(&mut config.output_shields, self.output_shields);
        set(&mut config.tool_argument_shields, self.tool_argument_shields);
        set(&mut config.tool_result_shields, self.tool_result_shields);
        set(&mut config.retrieved_shields, self.retrieved_shields);
        let moderation = self.moderation.map(|given| given.as_ref().map(guardrails::moderation).transpose()).transpose()?;
        set(&mut config.output_moderation, moderation);
        set(&mut config.limits, self.limits.map(|bounds| bounds.map(Limits::from)));
        if self.truncation.is_some() {
            config.truncation = request::truncation(self.truncation.as_deref())?.into();
        }
        set(&mut config.compact_threshold, self.compact_threshold.map(Option::unwrap_or_default));
        set(&mut config.response_format, self.text.map(|text| text?.format.and_then(request::response_format)));
        set(&mut config.reasoning_effort, self.reasoning_effort.map(Option::unwrap_or_default));
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
        // What may be chosen is known now.
        if let Some(choice) = self.tool_choice {
            let tools = Tools { servers: config.mcp_servers.clone(), file_search: config.file_search.clone(), ..Tools::default() };
            config.tool_choice = choice.map(|choice| tools::choice(&choice, &tools)).transpose()?;
        }
        Ok(())
    }
}

/// Each of a list, by its place.
fn read<T>(field: &str, given: &[Value], read: impl Fn(&str, &Value) -> Result<T>) -> Result<Vec<T>> {
    given.iter().enumerate().map(|(index, one)| read(&format!("{field}[{index}]"), one)).collect()
}

impl From<CalledAgent> for AgentTool {
    fn from(CalledAgent { agent_id, name, description, handoff }: CalledAgent) -> Self {
        Self { agent_id, name, description, handoff }
    }
}

impl From<AgentTool> for CalledAgent {
    fn from(AgentTool { agent_id, name, description, handoff }: AgentTool) -> Self {
        Self { agent_id, name, description, handoff }
    }
}

impl From<Bounds> for Limits {
    fn from(Bounds { max_steps, max_tokens, max_seconds, max_tool_calls, max_cost, max_depth }: Bounds) -> Self {
        Self { max_steps, max_tokens, max_seconds, max_tool_calls, max_cost, max_depth }
    }
}

impl From<Limits> for Bounds {
    fn from(Limits { max_steps, max_tokens, max_seconds, max_tool_calls, max_cost, max_depth }: Limits) -> Self {
        Self { max_steps, max_tokens, max_seconds, max_tool_calls, max_cost, max_depth }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Agent")]
pub(super) struct AgentObject {
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
    functions: Vec<Value>,
    mcp_servers: Vec<Value>,
    agents: Vec<CalledAgent>,
    tool_choice: Value,
    parallel_tool_calls: Option<bool>,
    vector_store_ids: Vec<String>,
    input_shields: Vec<String>,
    output_shields: Vec<String>,
    tool_argument_shields: Vec<String>,
    tool_result_shields: Vec<String>,
    retrieved_shields: Vec<String>,
    moderation: Option<Value>,
    limits: Option<Bounds>,
    truncation: &'static str,
    compact_threshold: Option<u32>,
    text: Value,
    reasoning_effort: Option<String>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    max_output_tokens: Option<u32>,
    metadata: BTreeMap<String, String>,
}

impl From<Agent> for AgentObject {
    fn from(agent: Agent) -> Self {
        let config = agent.config.unwrap_or_default();
        let banks = config.file_search.as_ref().map(|search| search.bank_ids.as_slice()).unwrap_or_default();
        let sampling = config.sampling.clone().unwrap_or_default();
        Self {
            id: agent.id,
            object: "agent",
            created_at: unix_seconds(agent.created.as_ref()),
            declared: agent.created.is_none(),
            functions: config.client_tools.iter().map(tools::show_function).collect(),
            mcp_servers: config.mcp_servers.iter().map(tools::show_server).collect(),
            tool_choice: tools::show_choice(&config),
            vector_store_ids: banks.iter().map(|id| store_id(id)).collect(),
            moderation: config.output_moderation.map(guardrails::told),
            truncation: if config.truncation() == HistoryTruncation::Auto { "auto" } else { "disabled" },
            text: response::text(&config, None),
            name: config.name,
            description: config.description,
            model: config.model,
            instructions: config.instructions,
            tools: config.tools,
            require_approval: config.require_approval,
            agents: config.agents.into_iter().map(CalledAgent::from).collect(),
            parallel_tool_calls: config.parallel_tool_calls,
            input_shields: config.input_shields,
            output_shields: config.output_shields,
            tool_argument_shields: config.tool_argument_shields,
            tool_result_shields: config.tool_result_shields,
            retrieved_shields: config.retrieved_shields,
            limits: config.limits.map(Bounds::from),
            compact_threshold: Some(config.compact_threshold).filter(|tokens| *tokens > 0),
            reasoning_effort: Some(config.reasoning_effort).filter(|effort| !effort.is_empty()),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_output_tokens: sampling.max_tokens,
            metadata: config.metadata.into_iter().collect(),
        }
    }
}

/// What the contract calls otherwise, or has in messages of its own: its beginning, and what stands here for it.
const NAMES: [(&str, &str); 5] = [
    ("sampling.max_tokens", "max_output_tokens"),
    ("sampling.", ""),
    ("client_tools[", "functions["),
    ("file_search.bank_ids", "vector_store_ids"),
    ("response_format.json_schema", "text.format"),
];

pub(super) fn renamed(error: Error) -> Error {
    let Some(field) = error.field().and_then(|field| field.strip_prefix("config.")) else { return error };
    let name = NAMES.iter().find_map(|(contracts, ours)| Some(format!("{ours}{}", field.strip_prefix(*contracts)?)));
    let field = name.unwrap_or_else(|| field.to_owned());
    let field = match field.strip_prefix("output_moderation.") {
        Some(field) => format!("moderation.{field}"),
        None if field.starts_with("mcp_servers[") => field.replacen("].label", "].server_label", 1).replacen("].url", "].server_url", 1),
        None => field,
    };
    let message = error.message().replace("config.sampling.", "").replace("config.", "");
    let told = Error::new(error.code(), message).with_field(field);
    match error.reason() {
        Some(reason) => told.with_reason(reason),
        None => told,
    }
}
