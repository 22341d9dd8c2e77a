//! A session as a file.

use std::path::Path;

use llama_stack_core::{Agents as _, Error, Result};
use llama_stack_proto::v1::{GetSessionRequest, GetTurnRequest, Session, Turn, step::Step};
use serde_json::{Value, json};

use super::{Client, client, turns};
use crate::{args::ServerArgs, named, output::Output, proto_json, reach};

/// What `format` says in such a file.
const FORMAT: &str = "llama-stack/session";
const VERSION: u64 = 1;

pub(super) struct Recording {
    pub(super) session: Session,
    /// The history, a tree by `parent_turn_id`, oldest first.
    pub(super) turns: Vec<Turn>,
    /// Turns of agents that were called. They are no part of the history.
    pub(super) called: Vec<Turn>,
}

impl Recording {
    pub(super) fn to_json(&self) -> Result<Value> {
        let all = |turns: &[Turn]| turns.iter().map(|turn| proto_json::to_json("Turn", turn)).collect::<Result<Vec<_>>>();
        Ok(json!({
            "format": FORMAT,
            "version": VERSION,
            "session": proto_json::to_json("Session", &self.session)?,
            "turns": all(&self.turns)?,
            "called": all(&self.called)?,
        }))
    }

    fn from_json(json: &Value) -> Result<Self> {
        if json["format"] != FORMAT {
            return Err(Error::invalid("file", "this is no exported session: `llama-stack session export` writes one"));
        }
        if json["version"] != VERSION {
            return Err(Error::invalid("file", format!("it is of version {}, and this build reads {VERSION}", json["version"])));
        }
        let all = |key: &str| {
            let listed = json[key].as_array().map(Vec::as_slice).unwrap_or_default();
            listed.iter().map(|turn| proto_json::from_json("Turn", turn)).collect::<Result<Vec<_>>>()
        };
        Ok(Self { session: proto_json::from_json("Session", &json["session"])?, turns: all("turns")?, called: all("called")? })
    }

    /// `-` is standard input.
    pub(super) fn read(file: &Path) -> Result<Self> {
        Self::from_json(&proto_json::read(file)?).map_err(|error| error.context(file.display().to_string()))
    }
}

pub(super) async fn fetch(client: &Client, session: &str, server: &str) -> Result<Recording> {
    let cx = crate::caller::caller();
    let found = client.get_session(&cx, GetSessionRequest { id: session.to_owned() }).await;
    let session = found.map_err(|error| reach::explained(error, server))?;
    let turns = turns(client, &cx, &session.id).await.map_err(|error| reach::explained(error, server))?;
    let (mut called, mut open) = (Vec::new(), children(&turns));
    while let Some(id) = open.pop() {
        match client.get_turn(&cx, GetTurnRequest { id }).await {
            Ok(turn) => {
                open.extend(children(std::slice::from_ref(&turn)));
                called.push(turn);
            }
            // It was never begun, or has been deleted since.
            Err(error) if error.code() == llama_stack_core::Code::NotFound => {}
            Err(error) => return Err(reach::explained(error, server)),
        }
    }
    Ok(Recording { session, turns, called })
}

/// The turns that answered these turns' calls of agents.
fn children(turns: &[Turn]) -> Vec<String> {
    let steps = turns.iter().flat_map(|turn| &turn.steps);
    let ids = steps.filter_map(|step| match &step.step {
        Some(Step::Tool(tool)) if !tool.child_turn_id.is_empty() => Some(tool.child_turn_id.clone()),
        _ => None,
    });
    ids.collect()
}

pub(super) async fn export(session: &str, file: Option<&Path>, server: &ServerArgs, output: &Output) -> Result<()> {
    if let Some(file) = file {
        named::no_folder(file)?;
    }
    let recording = {
        let _working = output.working(&format!("{session} is fetched"));
        fetch(&client(server)?, session, &server.server).await?
    };
    let text = serde_json::to_string_pretty(&recording.to_json()?);
    let text = text.map_err(|error| Error::internal("the session cannot be written as JSON").with_source(error))? + "\n";
    let Some(file) = file else { return output.write(&text) };
    std::fs::write(file, text).map_err(|error| named::unwritable(file, error))?;
    output.note(&format!("{}: {} turns", file.display(), recording.turns.len()));
    output.result(&json!({ "id": session, "file": file.display().to_string(), "turns": recording.turns.len() }), |_| String::new())
}
