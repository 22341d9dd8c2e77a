//! `llama-stack shield`: the shields of a running stack, over gRPC.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use llama_stack_core::{Error, Result, Safety, grpc::Remote};
use llama_stack_proto::v1::{
    ListShieldsRequest, Message, RunShieldRequest, RunShieldResponse, Shield, ShieldStage, safety_client::SafetyClient, violation::Level,
};
use serde::Serialize;
use tonic::transport::Channel;

mod calibrate;

use crate::{
    args::{ShieldTestArgs, ShieldVerb, Stage},
    named,
    output::Output,
    reach,
    table::table,
};

pub(crate) type Client = Remote<SafetyClient<Channel>>;

pub(crate) async fn run(verb: ShieldVerb, output: &Output) -> Result<()> {
    match verb {
        ShieldVerb::List(server) => list(&server.server, output).await,
        ShieldVerb::Test(args) => test(args, output).await,
        ShieldVerb::Calibrate(args) => calibrate::run(args, output).await,
    }
}

impl From<Stage> for ShieldStage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Input => Self::Input,
            Stage::ToolArguments => Self::ToolArguments,
            Stage::ToolResult => Self::ToolResult,
            Stage::Retrieved => Self::Retrieved,
            Stage::Output => Self::Output,
        }
    }
}

/// As commands take it.
pub(crate) fn word(stage: ShieldStage) -> String {
    stage.as_str_name().trim_start_matches("SHIELD_STAGE_").to_lowercase().replace('_', "-")
}

pub(crate) fn client(server: &str) -> Result<Client> {
    Ok(Client::new(reach::connect(server)?))
}

/// One text at a stage, as a message of whom that stage hears.
pub(crate) fn question(shield: &str, stage: ShieldStage, text: &str) -> RunShieldRequest {
    let message = if stage == ShieldStage::Output { Message::assistant(text) } else { Message::user(text) };
    RunShieldRequest { shield_id: shield.to_owned(), messages: vec![message], stage: stage.into(), ..Default::default() }
}

#[derive(Serialize)]
struct Row {
    id: String,
    provider: String,
    r#type: String,
    model: String,
    threshold: Option<f32>,
    stages: Vec<String>,
    categories: Vec<Category>,
    description: String,
}

#[derive(Serialize)]
struct Category {
    code: String,
    name: String,
}

async fn list(server: &str, output: &Output) -> Result<()> {
    let (client, mut request, mut rows) = (client(server)?, ListShieldsRequest::default(), Vec::new());
    loop {
        let page = client.list_shields(&crate::caller::caller(), request.clone()).await.map_err(|error| reach::explained(error, server))?;
        rows.extend(page.shields.into_iter().map(row));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    output.result(&rows, |rows| {
        if rows.is_empty() {
            return "this stack has no shields; name some under providers.safety, see docs/safety.md\n".to_owned();
        }
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let line = |row: &Row| {
            let codes: Vec<&str> = row.categories.iter().map(|category| category.code.as_str()).collect();
            let threshold = row.threshold.map_or_else(|| "-".into(), |threshold| threshold.to_string());
            let cells = [&row.id, &row.r#type, &row.model].map(|cell| or_dash(cell));
            let [id, kind, model] = cells;
            [id, kind, model, threshold, or_dash(&row.stages.join(",")), or_dash(&codes.join(","))]
        };
        table(["SHIELD", "TYPE", "MODEL", "THRESHOLD", "STAGES", "CATEGORIES"], rows.iter().map(line))
    })
}

fn row(shield: Shield) -> Row {
    let stages = shield.stages().map(word).collect();
    let category = |category: llama_stack_proto::v1::ShieldCategory| Category { code: category.code, name: category.name };
    Row {
        stages,
        id: shield.id,
        provider: shield.provider_id,
        r#type: shield.provider_type,
        model: shield.model,
        threshold: (shield.threshold > 0.0).then_some(shield.threshold),
        categories: shield.categories.into_iter().map(category).collect(),
        description: shield.description,
    }
}

/// A verdict, as it is shown.
#[derive(Serialize)]
struct Judged {
    passes: bool,
    /// It passes, and something was found in it all the same.
    warned: bool,
    reason: String,
    categories: Vec<String>,
    user_message: String,
    scores: Vec<Score>,
    /// The server told no probabilities: scores are 0 or 1.
    unscored: bool,
    findings: Vec<Found>,
    redacted: Option<String>,
    milliseconds: u128,
    /// It was judged before.
    known: bool,
}

#[derive(Serialize)]
struct Score {
    code: String,
    score: f32,
    violated: bool,
}

#[derive(Serialize)]
struct Found {
    code: String,
    start: u32,
    end: u32,
    detail: String,
}

async fn test(args: ShieldTestArgs, output: &Output) -> Result<()> {
    let text = match args.text.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        named => read(named.is_some())?,
    };
    let client = client(&args.server.server)?;
    let begun = Instant::now();
    let verdict = {
        let _working = output.working(&format!("{} judges", args.shield));
        client.run_shield(&crate::caller::caller(), question(&args.shield, args.stage.into(), &text)).await
    };
    let verdict = verdict.map_err(|error| reach::explained(error, &args.server.server))?;
    output.result(&judged(verdict, begun.elapsed()), shown)
}

/// A pipe is read to its end; a terminal only where it was asked for.
fn read(asked: bool) -> Result<String> {
    let absent = || Error::invalid("TEXT", "there is no text to judge: give it as an argument, or pipe it in");
    if !asked && std::io::stdin().is_terminal() {
        return Err(absent());
    }
    let text = named::standard_input()?;
    if text.trim().is_empty() { Err(absent()) } else { Ok(text.trim_end_matches('\n').to_owned()) }
}

fn judged(verdict: RunShieldResponse, took: Duration) -> Judged {
    // As in a turn: a warning lets the text pass, and a violation of no level that there is does not.
    let warned = verdict.violation.as_ref().is_some_and(|violation| violation.level() == Level::Warn);
    let passes = verdict.violation.is_none() || warned;
    let violation = verdict.violation.unwrap_or_default();
    let score = |score: llama_stack_proto::v1::CategoryScore| Score { code: score.code, score: score.score, violated: score.violated };
    let found =
        |found: llama_stack_proto::v1::Finding| Found { code: found.code, start: found.start, end: found.end, detail: found.detail };
    Judged {
        passes,
        warned,
        reason: violation.reason,
        categories: violation.categories,
        user_message: violation.user_message,
        scores: verdict.scores.into_iter().map(score).collect(),
        unscored: verdict.unscored,
        findings: verdict.findings.into_iter().map(found).collect(),
        redacted: verdict.redacted.map(|message| message.joined_text()),
        milliseconds: took.as_millis(),
        known: verdict.known_bytes > 0 && verdict.judged_bytes == 0,
    }
}

fn shown(judged: &Judged) -> String {
    let known = if judged.known { ", known from before" } else { "" };
    let found = [judged.reason.as_str(), &judged.categories.join(", ")].join(" ");
    let warning = if judged.warned { format!(", with a warning: {}", found.trim()) } else { String::new() };
    let head = match (judged.passes, &judged.redacted) {
        (true, None) => format!("passes{warning}"),
        (true, Some(text)) => format!("passes redacted: {text}{warning}"),
        (false, _) => format!("does not pass: {}", found.trim()),
    };
    let mut text = format!("{head} ({} ms{known})\n", judged.milliseconds);
    let mut scores: Vec<&Score> = judged.scores.iter().filter(|score| score.score > 0.0 || score.violated).collect();
    scores.sort_by(|a, b| b.score.total_cmp(&a.score));
    scores.iter().for_each(|score| text.push_str(&format!("  {:<24} {:.4}\n", score.code, score.score)));
    judged
        .findings
        .iter()
        .for_each(|found| text.push_str(&format!("  {} at {}..{}: {}\n", found.code, found.start, found.end, found.detail)));
    if judged.unscored {
        text.push_str("  the model's server told no probabilities: the score is 0 or 1 by its words\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::Violation;

    use super::*;

    fn of(level: Option<Level>) -> Judged {
        let violation = |level: Level| Violation { level: level.into(), categories: vec!["X".into()], ..Violation::default() };
        judged(RunShieldResponse { violation: level.map(violation), ..RunShieldResponse::default() }, Duration::ZERO)
    }

    #[test]
    fn what_passes_here_passes_in_a_turn() {
        assert_eq!(shown(&of(None)), "passes (0 ms)\n");
        assert_eq!(shown(&of(Some(Level::Warn))), "passes, with a warning: X (0 ms)\n");
        // A shield need not say why, nor at which level.
        for level in [Level::Error, Level::Unspecified] {
            assert_eq!(shown(&of(Some(level))), "does not pass: X (0 ms)\n");
        }
    }
}
