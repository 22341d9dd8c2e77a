//! `llama-stack safety audit`: the verdicts of a session's journal, asked for anew.

use std::collections::HashMap;

use llama_stack_core::{Agents, Error, Result, Safety, grpc::Remote};
use llama_stack_proto::v1::{
    GetSessionRequest, ListTurnsRequest, Message, RunShieldRequest, RunShieldResponse, ShieldStep, Turn, agents_client::AgentsClient,
    step::Step,
};
use serde::Serialize;
use tonic::transport::Channel;

mod texts;

use crate::{
    args::SafetyVerb,
    output::Output,
    reach,
    shield::{self, word},
    table::table,
};

pub(crate) async fn run(verb: SafetyVerb, output: &Output) -> Result<()> {
    match verb {
        SafetyVerb::Audit { server, session } => audit(&server.server, &session, output).await,
    }
}

#[derive(Serialize)]
struct Report {
    session: String,
    verdicts: usize,
    same: usize,
    differ: usize,
    not_asked: usize,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    turn: String,
    /// Index of the step.
    step: u32,
    shield: String,
    stage: String,
    /// `safe`, the reason with its codes, or why there was no verdict.
    journal: String,
    /// The same of today; empty where nobody was asked.
    now: String,
    outcome: Outcome,
    /// Why nobody was asked, or what to know of the question.
    note: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Same,
    Differs,
    NotAsked,
}

async fn audit(server: &str, session: &str, output: &Output) -> Result<()> {
    let channel = reach::connect(server)?;
    let agents = Remote::<AgentsClient<Channel>>::new(channel);
    let safety = shield::client(server)?;
    let request = GetSessionRequest { id: session.to_owned() };
    agents.get_session(&crate::caller::caller(), request).await.map_err(|error| reach::explained(error, server))?;
    let turns = turns(&agents, session).await.map_err(|error| reach::explained(error, server))?;
    let by_id: HashMap<&str, &Turn> = turns.iter().map(|turn| (turn.id.as_str(), turn)).collect();
    let steps = turns.iter().flat_map(|turn| &turn.steps);
    let total = steps.filter(|step| matches!(step.step, Some(Step::Shield(_)))).count() as u64;
    let (mut rows, counts) = (Vec::new(), output.counts());
    for turn in &turns {
        let history = history(turn, &by_id);
        for (at, step) in turn.steps.iter().enumerate() {
            if let Some(Step::Shield(shield)) = &step.step {
                let row = again(&safety, turn, at, shield, &history).await;
                rows.push(row.map_err(|error| reach::explained(error, server))?);
                counts("verdicts", rows.len() as u64, total);
            }
        }
    }
    let count = |outcome| rows.iter().filter(|row: &&Row| row.outcome == outcome).count();
    let (same, differ, not_asked) = (count(Outcome::Same), count(Outcome::Differs), count(Outcome::NotAsked));
    output.result(&Report { session: session.to_owned(), verdicts: rows.len(), same, differ, not_asked, rows }, shown)
}

/// All turns of a session, oldest first.
async fn turns(agents: &Remote<AgentsClient<Channel>>, session: &str) -> Result<Vec<Turn>> {
    let (mut all, mut request) = (Vec::new(), ListTurnsRequest { session_id: session.to_owned(), ..ListTurnsRequest::default() });
    loop {
        let page = agents.list_turns(&crate::caller::caller(), request.clone()).await?;
        all.extend(page.turns);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// What the turns before it said, oldest first.
fn history(turn: &Turn, by_id: &HashMap<&str, &Turn>) -> Vec<Message> {
    let (mut chain, mut next) = (Vec::new(), by_id.get(turn.parent_turn_id.as_str()));
    while let Some(parent) = next.filter(|_| chain.len() < by_id.len()) {
        chain.push(*parent);
        next = by_id.get(parent.parent_turn_id.as_str());
    }
    chain.iter().rev().flat_map(|turn| texts::said(turn, Some(turn.steps.len()))).collect()
}

/// Asks for one verdict anew.
///
/// # Errors
/// Where the stack does not answer; a shield that fails is a row.
async fn again(safety: &shield::Client, turn: &Turn, at: usize, step: &ShieldStep, history: &[Message]) -> Result<Row> {
    let mut row = Row {
        turn: turn.id.clone(),
        step: at as u32,
        shield: step.shield_id.clone(),
        stage: word(step.stage()),
        journal: match (&step.verdict, &step.error) {
            (Some(verdict), _) => said(verdict),
            (None, Some(error)) => format!("no verdict: {}", error.code),
            (None, None) => "unfinished".into(),
        },
        now: String::new(),
        outcome: Outcome::NotAsked,
        note: String::new(),
    };
    let Some(judged) = texts::judged(turn, at, step) else {
        row.note = "the journal does not hold the text as it was judged".into();
        return Ok(row);
    };
    if !judged.exact {
        row.note = "found by its place: the journal does not say exactly what was judged".into();
    }
    let mut messages = history.to_vec();
    messages.extend(texts::said(turn, judged.before));
    messages.push(judged.message);
    let request = RunShieldRequest { shield_id: step.shield_id.clone(), messages, stage: step.stage, fresh: true };
    row.now = match safety.run_shield(&crate::caller::caller(), request).await {
        Ok(verdict) => said(&verdict),
        Err(error) if reach::is_nobody(&error) => return Err(error),
        Err(error) => format!("no verdict: {}", told(&error)),
    };
    row.outcome = if row.now == row.journal { Outcome::Same } else { Outcome::Differs };
    Ok(row)
}

fn told(error: &Error) -> &'static str {
    error.code().name()
}

/// What of a verdict has to be the same.
fn said(verdict: &RunShieldResponse) -> String {
    match (&verdict.violation, &verdict.redacted) {
        (Some(violation), _) => {
            let mut codes = violation.categories.clone();
            codes.sort();
            [violation.reason.as_str(), &codes.join(",")].join(" ").trim().to_owned()
        }
        (None, Some(_)) => "redacted".into(),
        (None, None) => "safe".into(),
    }
}

fn shown(report: &Report) -> String {
    let row = |row: &Row| {
        let outcome = match row.outcome {
            Outcome::Same => "same",
            Outcome::Differs => "DIFFERS",
            Outcome::NotAsked => "not asked",
        };
        let now = if row.now.is_empty() { "-".to_owned() } else { row.now.clone() };
        [
            row.turn.clone(),
            row.step.to_string(),
            row.shield.clone(),
            row.stage.clone(),
            row.journal.clone(),
            now,
            outcome.into(),
            row.note.clone(),
        ]
    };
    let mut text = String::new();
    if !report.rows.is_empty() {
        text = table(["TURN", "STEP", "SHIELD", "STAGE", "JOURNAL", "NOW", "OUTCOME", "NOTE"], report.rows.iter().map(row));
    }
    let Report { verdicts, same, differ, not_asked, .. } = report;
    text.push_str(&format!("{verdicts} verdicts: {same} the same, {differ} differ, {not_asked} not asked for\n"));
    text
}
