//! `llama-stack session`: looks at sessions of a running stack, takes them out as a file, and runs them again.

mod recording;
mod replay;

use llama_stack_core::{Agents, Context, Result, grpc::Remote};
use llama_stack_proto::v1::{ListSessionsRequest, ListTurnsRequest, Message, Session, Turn, agents_client::AgentsClient, step::Step};
use serde_json::json;
use tonic::transport::Channel;

use crate::{
    args::{ServerArgs, SessionVerb},
    output::Output,
    reach,
    table::{self, table},
};

type Client = Remote<AgentsClient<Channel>>;

pub(crate) async fn run(verb: SessionVerb, output: &Output) -> Result<()> {
    match verb {
        SessionVerb::List { limit, server } => list(limit, &server, output).await,
        SessionVerb::Show { session, server } => show(&session, &server, output).await,
        SessionVerb::Export { session, file, server } => recording::export(&session, file.as_deref(), &server, output).await,
        SessionVerb::Replay(args) => replay::run(args, output).await,
    }
}

fn client(server: &ServerArgs) -> Result<Client> {
    Ok(Client::new(reach::connect(&server.server)?))
}

async fn list(limit: u32, server: &ServerArgs, output: &Output) -> Result<()> {
    let request = ListSessionsRequest { page_size: limit, ..ListSessionsRequest::default() };
    let sessions = client(server)?.list_sessions(&crate::caller::caller(), request).await;
    let sessions = sessions.map_err(|error| reach::explained(error, &server.server))?.sessions;
    let rows = sessions.iter().map(|session| {
        json!({ "id": session.id, "agent_id": session.agent_id, "name": session.name, "created": session.created.map(|time| time.to_string()) })
    });
    output.result(&json!({ "sessions": rows.collect::<Vec<_>>() }), |_| {
        if sessions.is_empty() {
            return "there are no sessions yet\n".into();
        }
        let line = |session: &Session| {
            let created = session.created.map(table::told).unwrap_or_default();
            [session.id.clone(), created, session.name.clone()]
        };
        table(["SESSION", "CREATED", "NAME"], sessions.iter().map(line))
    })
}

async fn show(session: &str, server: &ServerArgs, output: &Output) -> Result<()> {
    let recording = recording::fetch(&client(server)?, session, &server.server).await?;
    output.result(&recording.to_json()?, |_| {
        let mut text = format!("{} {}\n", recording.session.id, recording.session.name);
        for turn in &recording.turns {
            text += &told(turn);
        }
        text
    })
}

/// A turn as a conversation: who said what, and what was called.
fn told(turn: &Turn) -> String {
    let status = turn.status().as_str_name().trim_start_matches("TURN_STATUS_").to_lowercase();
    let mut text = format!("\n{} ({status})\n", turn.id);
    for message in &turn.input {
        text += &format!("  {}: {}\n", message.role().provenance(), words(message));
    }
    for step in turn.steps.iter().filter_map(|step| step.step.as_ref()) {
        match step {
            Step::Inference(inference) => {
                let said = inference.message.as_ref().map(words).unwrap_or_default();
                if !said.is_empty() {
                    text += &format!("  {}: {said}\n", inference.model);
                }
            }
            Step::Tool(tool) => {
                let call = tool.call.clone().unwrap_or_default();
                let result = tool.result.as_ref().map(|result| result.joined_text()).unwrap_or_else(|| "(waiting)".into());
                text += &format!("  {} {} -> {result}\n", call.name, call.arguments);
            }
            Step::Shield(shield) => {
                let violation = shield.verdict.as_ref().and_then(|verdict| verdict.violation.as_ref());
                text += &format!("  shield {}: {}\n", shield.shield_id, violation.map_or("passed", |violation| violation.reason.as_str()));
            }
            Step::Handoff(handoff) => text += &format!("  handed over to {}\n", handoff.agent_id),
            Step::Compaction(_) => text += "  the history was summarised\n",
            Step::ToolList(list) => text += &format!("  {} offers {} tools\n", list.server_label, list.tools.len()),
        }
    }
    if let Some(error) = &turn.error {
        text += &format!("  failed: {}\n", error.message);
    }
    text
}

fn words(message: &Message) -> String {
    let results = message.tool_results().map(|result| result.joined_text());
    let own = message.joined_text();
    std::iter::once(own).filter(|own| !own.is_empty()).chain(results).collect::<Vec<_>>().join(" ")
}

/// Every turn of a session's history, oldest first.
async fn turns(client: &Client, cx: &Context, session: &str) -> Result<Vec<Turn>> {
    let (mut turns, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTurnsRequest { session_id: session.to_owned(), page_token, ..ListTurnsRequest::default() };
        let page = client.list_turns(cx, request).await?;
        turns.extend(page.turns);
        if page.next_page_token.is_empty() {
            return Ok(turns);
        }
        page_token = page.next_page_token;
    }
}
