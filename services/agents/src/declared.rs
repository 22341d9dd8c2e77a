//! Agents that the manifest declares: there from the start, for every tenant, and not to be changed by a call.

use std::collections::BTreeMap;

use llama_stack_core::{
    Error, Result,
    manifest::{DeclaredAgent, DeclaredApproval, DeclaredModeration, ModerationMode},
};
use llama_stack_proto::v1::{
    Agent, AgentConfig, AgentTool, Approval, HistoryTruncation, Limits, McpServer, OutputModeration, SamplingParams, approval,
    output_moderation,
};

use crate::check;

#[derive(Default)]
pub(crate) struct Declared(BTreeMap<String, Agent>);

impl Declared {
    /// # Errors
    /// `InvalidArgument` on `agents.declared.<id>`: what is wrong with it.
    pub(crate) fn new(declared: &BTreeMap<String, DeclaredAgent>) -> Result<Self> {
        let mut agents = BTreeMap::new();
        for (id, agent) in declared {
            let config = config(id, agent);
            check::shape(&config).map_err(|error| {
                let field = error.field().unwrap_or_default().replacen("config.", "", 1);
                Error::invalid(format!("agents.declared.{id}.{field}"), error.message().replacen("config.", "", 1))
            })?;
            if let Some(missing) = agent.agents.iter().find(|called| !declared.contains_key(&called.agent)) {
                let there: Vec<&str> = declared.keys().map(String::as_str).collect();
                let message = format!("no agent {:?} is declared; there is: {}", missing.agent, there.join(", "));
                return Err(Error::invalid(format!("agents.declared.{id}.agents"), message));
            }
            agents.insert(id.clone(), Agent { id: id.clone(), config: Some(config), created: None, updated: None });
        }
        Ok(Self(agents))
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Agent> {
        self.0.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Agent> {
        self.0.values()
    }

    /// # Errors
    /// `FailedPrecondition` for an agent of the manifest.
    pub(crate) fn refuse_change(&self, id: &str) -> Result<()> {
        match self.0.contains_key(id) {
            true => {
                let message = format!("agent {id:?} is declared in the manifest: change it there");
                Err(Error::failed_precondition(message).with_reason("agent_declared"))
            }
            false => Ok(()),
        }
    }
}

fn config(id: &str, agent: &DeclaredAgent) -> AgentConfig {
    let sampling =
        SamplingParams { temperature: agent.temperature, top_p: agent.top_p, max_tokens: agent.max_tokens, ..SamplingParams::default() };
    let agents = agent.agents.iter().map(|called| AgentTool {
        agent_id: called.agent.clone(),
        name: called.name.clone(),
        description: called.description.clone(),
        handoff: called.handoff,
    });
    let servers = agent.mcp_servers.iter().map(|server| McpServer {
        label: server.label.clone(),
        url: server.url.clone(),
        connector_id: server.connector.clone(),
        allowed_tools: server.allowed_tools.clone(),
        require_approval: Some(approval(&server.require_approval)),
        ..McpServer::default()
    });
    AgentConfig {
        model: agent.model.clone(),
        name: if agent.name.is_empty() { id.to_owned() } else { agent.name.clone() },
        description: agent.description.clone(),
        instructions: agent.instructions.clone(),
        tools: agent.tools.clone(),
        agents: agents.collect(),
        mcp_servers: servers.collect(),
        require_approval: agent.require_approval.clone(),
        input_shields: agent.input_shields.clone(),
        tool_argument_shields: agent.tool_argument_shields.clone(),
        tool_result_shields: agent.tool_result_shields.clone(),
        retrieved_shields: agent.retrieved_shields.clone(),
        output_shields: agent.output_shields.clone(),
        output_moderation: Some(moderation(agent.output_moderation)),
        sampling: Some(sampling),
        reasoning_effort: agent.reasoning_effort.clone(),
        parallel_tool_calls: agent.parallel_tool_calls,
        truncation: if agent.truncate { HistoryTruncation::Auto.into() } else { HistoryTruncation::Disabled.into() },
        compact_threshold: agent.compact_threshold,
        limits: Some(Limits {
            max_steps: agent.limits.max_steps,
            max_tokens: agent.limits.max_tokens,
            max_seconds: agent.limits.max_seconds,
            max_tool_calls: agent.limits.max_tool_calls,
            max_cost: agent.limits.max_cost,
            max_depth: agent.limits.max_depth,
        }),
        ..AgentConfig::default()
    }
}

fn moderation(declared: DeclaredModeration) -> OutputModeration {
    let mode = match declared.mode {
        ModerationMode::Held => output_moderation::Mode::Held,
        ModerationMode::Windowed => output_moderation::Mode::Windowed,
        ModerationMode::After => output_moderation::Mode::After,
    };
    OutputModeration { mode: mode.into(), window_tokens: declared.window_tokens }
}

fn approval(declared: &DeclaredApproval) -> Approval {
    match declared {
        DeclaredApproval::Always => Approval { mode: approval::Mode::Always.into(), ..Approval::default() },
        DeclaredApproval::Never => Approval { mode: approval::Mode::Never.into(), ..Approval::default() },
        DeclaredApproval::Except(never) => Approval { mode: approval::Mode::ByTool.into(), never: never.clone(), always: Vec::new() },
    }
}
