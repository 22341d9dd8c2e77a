//! Agents as tools: one argument, one turn, its answer.

use std::collections::HashSet;

use futures::StreamExt;
use rmcp::model::{CallToolResult, ContentBlock, Tool};
use serde_json::{Value, json};

use llama_stack_core::{Agents, Context, Error, Result};
use llama_stack_proto::v1::{
    self, Agent, CreateTurnRequest, ListAgentsRequest, Message, OnDisconnect, Turn, TurnStatus, part::Content, step::Step,
    turn_event::Event,
};
use llama_stack_tools::mcp::fit_name;

use super::handler::name_of;

/// A list of tools that is longer serves no model.
const MAX_AGENTS: usize = 1_000;

/// The caller's agents under the names of their tools, oldest first: its own name made to fit, or its id where it has none or
/// a tool or an older agent has that name.
pub(super) async fn named(agents: &dyn Agents, cx: &Context, tools: &[v1::Tool]) -> Result<Vec<(String, Agent)>> {
    let (mut listed, mut request) = (Vec::new(), ListAgentsRequest { page_size: 1_000, ..ListAgentsRequest::default() });
    loop {
        let page = cx.within(agents.list_agents(cx, request.clone())).await?;
        listed.extend(page.agents);
        if page.next_page_token.is_empty() || listed.len() >= MAX_AGENTS {
            break;
        }
        request.page_token = page.next_page_token;
    }
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    let mut taken: HashSet<String> = tools.iter().map(|tool| name_of(tool).to_owned()).collect();
    let named = listed.into_iter().map(|agent| {
        let own = agent.config.as_ref().map(|config| config.name.as_str()).filter(|name| !name.is_empty()).map(fit_name);
        let name = own.filter(|name| !taken.contains(name)).unwrap_or_else(|| fit_name(&agent.id));
        taken.insert(name.clone());
        (name, agent)
    });
    Ok(named.collect())
}

pub(super) fn as_tool(name: &str, agent: &Agent) -> Tool {
    let description = match agent.config.as_ref().map(|config| config.description.as_str()) {
        None | Some("") => format!("Asks the agent {name}, and gives its answer."),
        Some(description) => description.to_owned(),
    };
    let schema = json!({
        "type": "object",
        "properties": { "input": { "type": "string", "description": "What to ask of the agent." } },
        "required": ["input"],
        "additionalProperties": false,
    });
    let schema = if let Value::Object(schema) = schema { schema } else { serde_json::Map::new() };
    Tool::new(name.to_owned(), description, schema)
}

/// Runs one turn in a session of its own. Who goes away ends it.
pub(super) async fn ask(agents: &dyn Agents, cx: &Context, agent_id: &str, input: &str) -> Result<CallToolResult> {
    let request = CreateTurnRequest {
        agent_id: agent_id.into(),
        input: vec![Message::user(input)],
        on_disconnect: OnDisconnect::Cancel.into(),
        ..CreateTurnRequest::default()
    };
    let mut events = agents.create_turn(cx, request).await?;
    let mut waits = None;
    while let Some(event) = events.next().await {
        let event = event?;
        match event.event {
            Some(Event::Ended(turn)) => return Ok(answer(&turn)),
            Some(Event::AwaitingTools(_)) => waits = Some(event.turn_id),
            _ => {}
        }
    }
    let Some(turn_id) = waits else { return Err(Error::unavailable("the agent's turn broke off before its end")) };
    Ok(failed(format!("the agent waits for tool results or for an approval, which only the agents API can give (turn {turn_id})")))
}

fn answer(turn: &Turn) -> CallToolResult {
    let text = last_words(turn);
    match turn.status() {
        TurnStatus::Completed => CallToolResult::success(vec![ContentBlock::text(text)]),
        TurnStatus::Incomplete => failed(format!("the agent was stopped by {}; so far it said: {text}", turn.incomplete_reason)),
        TurnStatus::Failed => failed(match &turn.error {
            Some(error) => format!("the agent failed: {}", error.message),
            None => "the agent failed".to_owned(),
        }),
        _ => failed("the agent's turn was cancelled".to_owned()),
    }
}

fn failed(text: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// What the model said last: its text, or its words where it declined.
fn last_words(turn: &Turn) -> String {
    let said = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(Step::Inference(inference)) => inference.message.as_ref(),
        _ => None,
    });
    let parts = said.map(|message| message.parts.as_slice()).unwrap_or_default();
    let words = parts.iter().filter_map(|part| match &part.content {
        Some(Content::Text(text) | Content::Refusal(text)) => Some(text.as_str()),
        _ => None,
    });
    words.collect()
}
