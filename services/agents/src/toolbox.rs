//! The tools of one turn: what the model is offered, and who runs a call.

use std::collections::HashMap;

use llama_stack_core::{Context, Result, Tools};
use llama_stack_proto::v1::{AgentConfig, ListToolsRequest, OnInterrupt, Tool, ToolCall, ToolDefinition};

use crate::arguments;

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
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Runner {
    Client,
    /// With what to do if the call is cut off.
    Stack(OnInterrupt),
}

/// Every tool of the stack.
pub(crate) async fn list(tools: Option<&dyn Tools>, cx: &Context) -> Result<Vec<Tool>> {
    let Some(tools) = tools else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = tools.list_tools(cx, ListToolsRequest { page_token, ..ListToolsRequest::default() }).await?;
        all.extend(page.tools);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

impl Toolbox {
    /// A tool that has gone since the agent was made is left out; a call of it is then one of an unknown tool.
    pub(crate) async fn of(tools: Option<&dyn Tools>, cx: &Context, config: &AgentConfig) -> Result<Self> {
        let mut toolbox = Self::default();
        if !config.tools.is_empty() {
            let mut there: HashMap<String, Tool> = HashMap::new();
            for tool in list(tools, cx).await? {
                there.entry(tool.definition.as_ref().map(|definition| definition.name.clone()).unwrap_or_default()).or_insert(tool);
            }
            for name in &config.tools {
                let Some(tool) = there.remove(name) else {
                    tracing::warn!(tool = name, "a tool of the agent is not in the stack any more");
                    continue;
                };
                let runner = Runner::Stack(tool.on_interrupt());
                tool.definition.into_iter().for_each(|definition| toolbox.add(definition, runner));
            }
        }
        config.client_tools.iter().for_each(|definition| toolbox.add(definition.clone(), Runner::Client));
        Ok(toolbox)
    }

    fn add(&mut self, definition: ToolDefinition, runner: Runner) {
        self.entries.insert(definition.name.clone(), Entry { index: self.definitions.len(), runner });
        self.definitions.push(definition);
    }

    pub(crate) fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
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
        arguments::check(definition, &call.arguments)?;
        Ok(entry.runner)
    }

    pub(crate) fn for_client(&self, call: &ToolCall) -> bool {
        self.runner(call) == Ok(Runner::Client)
    }
}
