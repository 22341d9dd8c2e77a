//! Agents: configurations under an id.

use llama_stack_core::{Context, Error, Result, ids};
use llama_stack_proto::v1::{Agent, AgentConfig, CreateAgentRequest, UpdateAgentRequest};

use crate::{check, runtime::Shared};

pub(crate) async fn create(shared: &Shared, cx: &Context, request: CreateAgentRequest) -> Result<Agent> {
    let config = checked(shared, cx, request.config).await?;
    let now = Some(ids::now());
    let agent = Agent { id: ids::new("agent"), config: Some(config), created: now, updated: now };
    shared.parts.store.put_agent(cx.tenant(), &agent).await?;
    Ok(agent)
}

pub(crate) async fn update(shared: &Shared, cx: &Context, request: UpdateAgentRequest) -> Result<Agent> {
    let mut agent = shared.parts.store.get_agent(cx.tenant(), &request.id).await?;
    agent.config = Some(checked(shared, cx, request.config).await?);
    agent.updated = Some(ids::now());
    shared.parts.store.put_agent(cx.tenant(), &agent).await?;
    Ok(agent)
}

async fn checked(shared: &Shared, cx: &Context, config: Option<AgentConfig>) -> Result<AgentConfig> {
    let config = config.ok_or_else(|| Error::invalid("config", "config is required"))?;
    check::config(&shared.parts, cx, &config).await?;
    Ok(config)
}
