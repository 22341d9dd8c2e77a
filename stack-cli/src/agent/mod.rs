//! `llama-stack agent`: the agents of a running stack, and turns at a terminal.

mod kept;
mod turn;

use std::io::IsTerminal;

use llama_stack_core::{Agents, Code, Error, Result, grpc::Remote};
use llama_stack_proto::v1::{Agent, AgentConfig, ListAgentsRequest, SamplingParams, TurnStatus, agents_client::AgentsClient};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::{AgentArgs, AgentChatArgs, AgentRunArgs, AgentVerb},
    chat::{Client as Models, first_chat_model},
    lines, named,
    output::Output,
    proto_json::to_json,
    reach,
    table::table,
};

pub(crate) type Client = Remote<AgentsClient<Channel>>;

pub(crate) async fn run(verb: AgentVerb, output: &Output) -> Result<()> {
    match verb {
        AgentVerb::List(server) => list(&server.server, output).await,
        AgentVerb::Show { agent, server } => kept::show(&agent, &server.server, output).await,
        AgentVerb::Create { file, server } => kept::create(&file, &server.server, output).await,
        AgentVerb::Update { agent, file, server } => kept::update(agent, &file, &server.server, output).await,
        AgentVerb::Delete { agent, server } => kept::delete(agent, &server.server, output).await,
        AgentVerb::Run(args) => once(args, output).await,
        AgentVerb::Chat(args) => chat(args, output).await,
    }
}

#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    model: String,
    tools: Vec<String>,
    description: String,
}

async fn list(server: &str, output: &Output) -> Result<()> {
    let (client, mut agents) = (Client::new(reach::connect(server)?), Vec::<Agent>::new());
    let mut request = ListAgentsRequest { page_size: 1000, ..ListAgentsRequest::default() };
    loop {
        let page = client.list_agents(&crate::caller::caller(), request.clone()).await.map_err(|error| reach::explained(error, server))?;
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let row = |agent: Agent| {
        let config = agent.config.unwrap_or_default();
        Row { id: agent.id, name: config.name, model: config.model, tools: config.tools, description: config.description }
    };
    let rows: Vec<Row> = agents.into_iter().map(row).collect();
    output.result(&rows, |rows| {
        if rows.is_empty() {
            return "there are no agents yet; declare some under agents.declared, keep one (llama-stack agent create FILE), or make one up: \
                    llama-stack agent chat --tool NAME\n"
                .into();
        }
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let line =
            |row: &Row| [row.id.clone(), or_dash(&row.name), row.model.clone(), or_dash(&row.tools.join(",")), row.description.clone()];
        table(["AGENT", "NAME", "MODEL", "TOOLS", "DESCRIPTION"], rows.iter().map(line))
    })
}

/// The configuration of an agent that is made up here; `None` where one of the stack was named, or its session's is meant.
async fn config(args: &AgentArgs) -> Result<Option<AgentConfig>> {
    let own = args.model.is_some() || args.instructions.is_some() || !args.tool.is_empty() || !args.require_approval.is_empty();
    let goes_on = args.session.is_some() || args.after.is_some();
    if args.agent.is_some() || goes_on && !own {
        return Ok(None);
    }
    let server = &args.server.server;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_chat_model(&Models::new(reach::connect(server)?), server).await?,
    };
    let mut tools = args.tool.clone();
    tools.extend(args.require_approval.iter().filter(|name| !args.tool.contains(name)).cloned());
    Ok(Some(AgentConfig {
        model,
        instructions: args.instructions.clone().unwrap_or_default(),
        tools,
        require_approval: args.require_approval.clone(),
        sampling: args.max_tokens.map(|tokens| SamplingParams { max_tokens: Some(tokens), ..SamplingParams::default() }),
        ..AgentConfig::default()
    }))
}

async fn talk(args: &AgentArgs, output: &Output) -> Result<turn::Talk> {
    Ok(turn::Talk {
        client: Client::new(reach::connect(&args.server.server)?),
        agent: args.agent.clone().unwrap_or_default(),
        config: config(args).await?,
        session: args.session.clone().unwrap_or_default(),
        after: args.after.clone().unwrap_or_default(),
        approve: args.approve,
        output: output.clone(),
    })
}

async fn once(args: AgentRunArgs, output: &Output) -> Result<()> {
    let text = match &args.text {
        Some(text) if text != "-" => text.clone(),
        _ => named::standard_input()?,
    };
    if text.trim().is_empty() {
        return Err(Error::invalid("TEXT", "there is nothing to say: give it as an argument, or pipe it in"));
    }
    let server = args.agent.server.server.clone();
    let turn = talk(&args.agent, output).await?.say(text.trim_end()).await.map_err(|error| reach::explained(error, &server))?;
    output.result(&to_json("Turn", &turn)?, |_| format!("(session {})\n", turn.session_id))?;
    match turn.status() {
        TurnStatus::Completed => Ok(()),
        TurnStatus::AwaitingTools => Err(Error::failed_precondition(format!(
            "the turn {} waits for a decision: say it on a terminal, or with --approve all or none",
            turn.id
        ))),
        TurnStatus::Failed => Err(turn.error.as_ref().map_or_else(|| Error::internal("the turn failed"), Error::from)),
        _ => Err(Error::failed_precondition(format!("the turn ended early: {}", reason(&turn.incomplete_reason)))),
    }
}

fn reason(reason: &str) -> &str {
    if reason.is_empty() { "it was cancelled" } else { reason }
}

async fn chat(args: AgentChatArgs, output: &Output) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid("stdin", "a conversation wants a terminal; for one turn from a pipe there is `agent run`"));
    }
    if output.is_json() {
        return Err(Error::invalid("json", "a conversation has no JSON; for one turn there is `agent run --json`"));
    }
    let server = args.agent.server.server.clone();
    let mut talk = talk(&args.agent, output).await?;
    output.note("an empty line or Ctrl-D ends, Ctrl-C stops an answer");
    let mut editor = lines::editor()?;
    while let Some((line, back)) = lines::next(editor).await? {
        editor = back;
        match talk.say(&line).await {
            // The branch is the session's newest turn now.
            Ok(turn) => (talk.session, talk.after) = (turn.session_id, String::new()),
            Err(error) if error.code() == Code::Cancelled => output.note(error.message()),
            Err(error) if talk.session.is_empty() => return Err(reach::explained(error, &server)),
            Err(error) => output.note(&format!("error: {error}")),
        }
    }
    if !talk.session.is_empty() {
        output.note(&format!("go on with --session {}", talk.session));
    }
    Ok(())
}
