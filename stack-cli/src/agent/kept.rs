//! Agents that a stack keeps: their configurations as JSON, by protobuf's mapping of `AgentConfig`.

use std::path::Path;

use llama_stack_core::{Agents as _, Result};
use llama_stack_proto::v1::{Agent, AgentConfig, CreateAgentRequest, DeleteAgentRequest, GetAgentRequest, UpdateAgentRequest};
use serde_json::json;

use super::Client;
use crate::{
    caller::caller,
    output::Output,
    proto_json::{self, from_json, to_json},
    reach,
};

pub(super) async fn show(agent: &str, server: &str, output: &Output) -> Result<()> {
    let found = Client::new(reach::connect(server)?).get_agent(&caller(), GetAgentRequest { id: agent.to_owned() }).await;
    let config = found.map_err(|error| reach::explained(error, server))?.config.unwrap_or_default();
    output.result(&to_json("AgentConfig", &config)?, |config| format!("{config:#}\n"))
}

pub(super) async fn create(file: &Path, server: &str, output: &Output) -> Result<()> {
    let config = Some(read(file)?);
    let made = Client::new(reach::connect(server)?).create_agent(&caller(), CreateAgentRequest { config }).await;
    told(&made.map_err(|error| reach::explained(error, server))?, "kept as", output)
}

pub(super) async fn update(agent: String, file: &Path, server: &str, output: &Output) -> Result<()> {
    let config = Some(read(file)?);
    let changed = Client::new(reach::connect(server)?).update_agent(&caller(), UpdateAgentRequest { id: agent, config }).await;
    told(&changed.map_err(|error| reach::explained(error, server))?, "changed", output)
}

pub(super) async fn delete(agent: String, server: &str, output: &Output) -> Result<()> {
    let deleted = Client::new(reach::connect(server)?).delete_agent(&caller(), DeleteAgentRequest { id: agent.clone() }).await;
    deleted.map_err(|error| reach::explained(error, server))?;
    output.result(&json!({ "id": agent, "deleted": true }), |_| format!("deleted {agent}\n"))
}

fn told(agent: &Agent, what: &str, output: &Output) -> Result<()> {
    output.result(&to_json("Agent", agent)?, |_| format!("{what} {}\n", agent.id))
}

/// `-` is standard input.
fn read(file: &Path) -> Result<AgentConfig> {
    from_json("AgentConfig", &proto_json::read(file)?).map_err(|error| error.context(file.display().to_string()))
}
