//! The tools of one turn: what the model is offered, who runs a call, and whether it may run.

use std::collections::{HashMap, HashSet};

use llama_stack_core::{Context, Error, Result, Tools};
use llama_stack_proto::v1::{
    AgentConfig, Approval, ApprovalRequest, ListToolsRequest, McpServer, OnInterrupt, Tool, ToolCall, ToolDefinition, ToolListStep,
    approval,
};

use llama_stack_policy::Facts;

use crate::{
    arguments, file_search, hash,
    plan::{Desk, Gate, RunBy},
};

/// How agents are offered as tools: what one is called with.
const ASK: &str = r#"{"type":"object","properties":{"input":{"type":"string","description":"What to do, with all that is needed to do it."}},"required":["input"],"additionalProperties":false}"#;
const TAKE_OVER: &str = r#"{"type":"object","properties":{"reason":{"type":"string"}},"additionalProperties":false}"#;

#[derive(Default)]
pub(crate) struct Toolbox {
    /// In the order of the configuration, the stack's first.
    definitions: Vec<ToolDefinition>,
    entries: HashMap<String, Entry>,
}

struct Entry {
    /// Into `definitions`.
    index: usize,
    runner: Runner,
    /// A person is asked before each call.
    ask: bool,
    facts: Facts,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Runner {
    Client,
    /// With what to do if the call is cut off.
    Stack(OnInterrupt),
    /// The runtime itself, over the agent's banks. It only reads, so a call that was cut off runs again.
    Search,
    /// By its label.
    Server(String, OnInterrupt),
    /// By its id: it answers in a turn of its own.
    Agent(String),
    /// By its id: it takes over.
    Handoff(String),
}

/// An agent that may be called, with what the model is told of it.
pub(crate) struct Callable {
    pub(crate) agent_id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) handoff: bool,
    /// What it may read to give its answer.
    pub(crate) config: AgentConfig,
}

/// Every tool of the stack, or of one group.
pub(crate) async fn list(tools: Option<&dyn Tools>, cx: &Context, group_id: &str) -> Result<Vec<Tool>> {
    let Some(tools) = tools else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let page =
            tools.list_tools(cx, ListToolsRequest { page_token, group_id: group_id.to_owned(), ..ListToolsRequest::default() }).await?;
        all.extend(page.tools);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

impl Toolbox {
    /// A tool that has gone since the agent was made is left out; a call of it is then one of an unknown tool.
    pub(crate) async fn of(tools: Option<&dyn Tools>, cx: &Context, config: &AgentConfig, agents: Vec<Callable>) -> Result<Self> {
        let mut toolbox = Self::default();
        let mut there: HashMap<String, Tool> = HashMap::new();
        if !config.tools.is_empty() || agents.iter().any(|agent| !agent.config.tools.is_empty()) {
            for tool in list(tools, cx, "").await? {
                there.entry(tool.definition.as_ref().map(|definition| definition.name.clone()).unwrap_or_default()).or_insert(tool);
            }
        }
        for name in &config.tools {
            let Some(tool) = there.get(name) else {
                tracing::warn!(tool = name, "a tool of the agent is not in the stack any more");
                continue;
            };
            let (runner, facts, ask) = (Runner::Stack(tool.on_interrupt()), Facts::of(tool, false), config.require_approval.contains(name));
            tool.definition.iter().for_each(|definition| toolbox.add(definition.clone(), runner.clone(), ask, facts.clone()));
        }
        if file_search::offered(config) {
            let ask = config.require_approval.iter().any(|name| name == file_search::NAME);
            toolbox.add(file_search::definition(), Runner::Search, ask, file_search::facts());
        }
        for agent in agents {
            let (runner, schema) =
                if agent.handoff { (Runner::Handoff(agent.agent_id), TAKE_OVER) } else { (Runner::Agent(agent.agent_id), ASK) };
            let ask = config.require_approval.contains(&agent.name);
            // It answers with what it has read, which is not known here: whatever it may read counts.
            let facts = Facts { reads_private: may_read_private(&agent.config, &there), ..brings(&agent.name, "agents") };
            toolbox.add(ToolDefinition::new(agent.name, agent.description, schema), runner, ask, facts);
        }
        for definition in &config.client_tools {
            let facts = brings(&definition.name, "client");
            toolbox.add(definition.clone(), Runner::Client, false, facts);
        }
        Ok(toolbox)
    }

    /// Adds what a server listed.
    pub(crate) fn add_list(&mut self, server: &McpServer, list: &ToolListStep) {
        // Who is not told a secret has none to tell.
        let reads_private = told_secrets(server);
        for definition in &list.tools {
            let name = &definition.name;
            let on_interrupt = if list.retry.contains(name) { OnInterrupt::Retry } else { OnInterrupt::Fail };
            let facts = Facts {
                name: name.clone(),
                group: server.label.clone(),
                reads_untrusted: true,
                reads_private,
                changes_state: !list.read_only.contains(name),
                remote: true,
            };
            let ask = asks(server.require_approval.as_ref(), name);
            self.add(definition.clone(), Runner::Server(server.label.clone(), on_interrupt), ask, facts);
        }
    }

    /// Leaves only these.
    pub(crate) fn allow(&mut self, allowed: &[String]) {
        if allowed.is_empty() {
            return;
        }
        let (definitions, mut entries) = (std::mem::take(&mut self.definitions), std::mem::take(&mut self.entries));
        for definition in definitions.into_iter().filter(|definition| allowed.contains(&definition.name)) {
            if let Some(entry) = entries.remove(&definition.name) {
                self.add(definition, entry.runner, entry.ask, entry.facts);
            }
        }
    }

    fn add(&mut self, definition: ToolDefinition, runner: Runner, ask: bool, facts: Facts) {
        self.entries.insert(definition.name.clone(), Entry { index: self.definitions.len(), runner, ask, facts });
        self.definitions.push(definition);
    }

    /// Refuses a listing that has a name which is taken: a tool must not stand in for another.
    ///
    /// # Errors
    /// `AlreadyExists`, with both.
    pub(crate) fn check_names(&self, label: &str, tools: &[ToolDefinition]) -> Result<()> {
        let mut seen = HashSet::new();
        for tool in tools {
            let taken = self.entries.get(&tool.name).map(|entry| entry.facts.group.as_str());
            if let Some(other) = taken.or_else(|| (!seen.insert(&tool.name)).then_some(label)) {
                let message = format!("tool {:?} of server {label:?} has the name of a tool of {other:?}", tool.name);
                return Err(Error::new(llama_stack_core::Code::AlreadyExists, message).with_reason("tool_shadowed"));
            }
        }
        Ok(())
    }

    pub(crate) fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
    }

    /// The hash of the definition under which a tool is offered; empty where there is none.
    pub(crate) fn definition_hash(&self, name: &str) -> String {
        let entry = self.entries.get(name).and_then(|entry| self.definitions.get(entry.index));
        entry.map(hash::of_definition).unwrap_or_default()
    }

    pub(crate) fn facts(&self, name: &str) -> Option<&Facts> {
        self.entries.get(name).map(|entry| &entry.facts)
    }

    pub(crate) fn asks(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.ask)
    }

    /// Who runs a call.
    ///
    /// # Errors
    /// What to tell the model of a call that nobody can run.
    pub(crate) fn runner(&self, call: &ToolCall) -> Result<Runner, String> {
        let entry = self.entries.get(&call.name);
        let Some((definition, entry)) = entry.and_then(|entry| Some((self.definitions.get(entry.index)?, entry))) else {
            let there: Vec<&str> = self.definitions.iter().map(|definition| definition.name.as_str()).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            return Err(format!("there is no tool {:?}; there is: {there}", call.name));
        };
        match entry.runner {
            Runner::Search => file_search::queries(&call.arguments).map(drop)?,
            _ => arguments::check(definition, &call.arguments)?,
        }
        Ok(entry.runner.clone())
    }
}

/// Whether an agent that is called can bring back what only some may know.
fn may_read_private(config: &AgentConfig, there: &HashMap<String, Tool>) -> bool {
    // Further agents may call further ones: the worst is assumed of them.
    !config.agents.is_empty()
        || config.file_search.is_some()
        || config.mcp_servers.iter().any(told_secrets)
        || config.tools.iter().any(|name| there.get(name).is_none_or(|tool| tool.reads_private))
}

fn told_secrets(server: &McpServer) -> bool {
    !server.connector_id.is_empty() || !server.authorization.is_empty() || !server.headers.is_empty()
}

/// Of one that brings text from outside, and does nothing there.
fn brings(name: &str, group: &str) -> Facts {
    Facts { name: name.into(), group: group.into(), reads_untrusted: true, reads_private: false, changes_state: false, remote: false }
}

/// Whether calls of a server's tool wait for a person. They do unless it was said that they need not.
fn asks(approval: Option<&Approval>, tool: &str) -> bool {
    let Some(approval) = approval else { return true };
    let named = |names: &[String]| names.iter().any(|name| name == tool);
    match approval.mode() {
        approval::Mode::Never => false,
        approval::Mode::ByTool => named(&approval.always) || !named(&approval.never),
        approval::Mode::Always | approval::Mode::Unspecified => true,
    }
}

/// A turn's toolbox with all that bears on whether a call may run.
pub(crate) struct Counter<'a> {
    pub(crate) toolbox: &'a Toolbox,
    pub(crate) turn_id: &'a str,
    /// What the policy says of a call; empty ids where there is none.
    pub(crate) judge: &'a dyn Fn(&ToolCall, &Facts) -> Gate,
    /// Whether a tool, which a person approved before, is another now.
    pub(crate) changed: &'a dyn Fn(&str) -> bool,
    pub(crate) now: prost_types::Timestamp,
    pub(crate) approval_seconds: i64,
}

impl Desk for Counter<'_> {
    fn runner(&self, call: &ToolCall) -> RunBy {
        match self.toolbox.runner(call) {
            Ok(Runner::Client) => RunBy::Client,
            Ok(Runner::Server(label, _)) => RunBy::Server(label),
            Ok(Runner::Agent(_)) => RunBy::Agent,
            Ok(Runner::Handoff(agent_id)) => RunBy::Handoff(agent_id),
            Ok(Runner::Stack(_) | Runner::Search) | Err(_) => RunBy::Stack,
        }
    }

    fn gate(&self, call: &ToolCall) -> Gate {
        // What cannot be run need not be asked about: the model is told why.
        if self.toolbox.runner(call).is_err() {
            return Gate::Open { policy: String::new() };
        }
        let Some(facts) = self.toolbox.facts(&call.name) else { return Gate::Open { policy: String::new() } };
        let judged = (self.judge)(call, facts);
        match judged {
            Gate::Open { policy } if (self.changed)(&call.name) => Gate::Ask { asked_by: "changed".into(), policy },
            Gate::Open { policy } if self.toolbox.asks(&call.name) => Gate::Ask { asked_by: "agent".into(), policy },
            judged => judged,
        }
    }

    fn request(&self, call: &ToolCall, asked_by: &str) -> ApprovalRequest {
        let server_label = match self.toolbox.runner(call) {
            Ok(Runner::Server(label, _)) => label,
            _ => String::new(),
        };
        let expires = prost_types::Timestamp { seconds: self.now.seconds.saturating_add(self.approval_seconds), ..self.now };
        ApprovalRequest {
            id: hash::approval_id(self.turn_id, call, asked_by),
            call: Some(call.clone()),
            server_label,
            definition_hash: self.toolbox.definition_hash(&call.name),
            expires: Some(expires),
            asked_by: asked_by.to_owned(),
        }
    }
}
