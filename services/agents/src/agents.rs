//! Agents: configurations under an id.

use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{Agent, AgentConfig, CreateAgentRequest, ListAgentsRequest, ListAgentsResponse, UpdateAgentRequest};

use crate::{check, runtime::Shared, toolbox::Callable};

pub(crate) async fn create(shared: &Shared, cx: &Context, request: CreateAgentRequest) -> Result<Agent> {
    let config = checked(shared, cx, request.config).await?;
    let now = Some(ids::now());
    let agent = Agent { id: ids::new("agent"), config: Some(config), created: now, updated: now };
    shared.parts.store.put_agent(cx.tenant(), &agent).await?;
    Ok(agent)
}

pub(crate) async fn update(shared: &Shared, cx: &Context, request: UpdateAgentRequest) -> Result<Agent> {
    shared.declared.refuse_change(&request.id)?;
    let mut agent = shared.parts.store.get_agent(cx.tenant(), &request.id).await?;
    agent.config = Some(checked(shared, cx, request.config).await?);
    agent.updated = Some(ids::now());
    shared.parts.store.put_agent(cx.tenant(), &agent).await?;
    Ok(agent)
}

async fn checked(shared: &Shared, cx: &Context, config: Option<AgentConfig>) -> Result<AgentConfig> {
    let config = config.ok_or_else(|| Error::invalid("config", "config is required"))?;
    check::config(&shared.parts, cx, &config).await?;
    check::no_secrets(&config)?;
    check::called(shared, cx, &config).await?;
    Ok(config)
}

/// The tenant's own, newest first; then those of the manifest, on the last page.
pub(crate) async fn list(shared: &Shared, cx: &Context, request: ListAgentsRequest) -> Result<ListAgentsResponse> {
    let list = shared.parts.store.list_agents(cx.tenant(), request.page_size, &request.page_token);
    let (mut agents, next_page_token) = list.await?;
    if next_page_token.is_empty() {
        agents.extend(shared.declared.all().cloned());
    }
    Ok(ListAgentsResponse { agents, next_page_token })
}

pub(crate) async fn delete(shared: &Shared, cx: &Context, id: &str) -> Result<()> {
    shared.declared.refuse_change(id)?;
    shared.parts.store.delete_agent(cx.tenant(), id).await
}

impl Shared {
    /// An agent of the manifest, or of the tenant.
    ///
    /// # Errors
    /// `NotFound`
    pub(crate) async fn agent(&self, tenant: &str, id: &str) -> Result<Agent> {
        match self.declared.get(id) {
            Some(agent) => Ok(agent.clone()),
            None => self.parts.store.get_agent(tenant, id).await,
        }
    }

    /// The agents that this configuration may call. One that has gone since is left out.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn callable(&self, cx: &Context, config: &AgentConfig) -> Result<Vec<Callable>> {
        let mut callable = Vec::new();
        for tool in &config.agents {
            let agent = match self.agent(cx.tenant(), &tool.agent_id).await {
                Ok(agent) => agent.config.unwrap_or_default(),
                Err(error) if error.code() == Code::NotFound => {
                    tracing::warn!(agent = tool.agent_id, "an agent that this one may call is gone");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let or = |own: &str, agents: String| if own.is_empty() { agents } else { own.to_owned() };
            let name = or(&tool.name, tool_name(if agent.name.is_empty() { &tool.agent_id } else { &agent.name }, tool.handoff));
            let description = or(&tool.description, agent.description.clone());
            callable.push(Callable { agent_id: tool.agent_id.clone(), name, description, handoff: tool.handoff, config: agent });
        }
        Ok(callable)
    }
}

/// A tool's name made from an agent's: what a name cannot hold becomes `_`.
fn tool_name(agent: &str, handoff: bool) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name = agent.chars().map(fit);
    let prefix = if handoff { "transfer_to_" } else { "ask_" };
    prefix.chars().chain(name).take(64).collect()
}
