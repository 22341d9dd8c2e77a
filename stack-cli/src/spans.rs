//! `llama-stack spans`: what turns did and how long that took, of many turns, as a running stack keeps it.

use std::collections::BTreeMap;

use clap::Args;
use llama_stack_core::{Result, Telemetry as _, grpc::Remote, ids};
use llama_stack_proto::v1::{ListSpansRequest, SpanRecord, telemetry_client::TelemetryClient};
use prost_types::Timestamp;
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::ServerArgs,
    caller::caller,
    named,
    output::Output,
    reach,
    table::{table, told},
};

/// Largest page.
const PAGE: u32 = 1_000;

#[derive(Args)]
pub(crate) struct SpansArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only these: chat, execute_tool, invoke_agent, run_shield, list_tools, handoff or compact
    #[arg(long, default_value = "")]
    operation: String,
    /// Only with this name, for example "execute_tool calculator"
    #[arg(long, default_value = "")]
    name: String,
    /// Only of this session
    #[arg(long, default_value = "")]
    session: String,
    /// Only of turns of this agent
    #[arg(long, default_value = "")]
    agent: String,
    /// Only of this person's turns
    #[arg(long, default_value = "")]
    principal: String,
    /// Only those that failed
    #[arg(long)]
    errors: bool,
    /// Only those that took at least so long: 2s, 250ms, 1.5m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    slower_than: Option<f64>,
    /// Only those with this attribute, for example gen_ai.tool.name=calculator; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    attribute: Vec<String>,
    /// Only of turns that began in the last so many hours
    #[arg(long)]
    hours: Option<u32>,
    /// At most so many, newest first
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Look at most at so many turns, in hundreds, for what a filter seldom fits
    #[arg(long, default_value_t = 100, value_name = "HUNDREDS", value_parser = clap::value_parser!(u32).range(1..))]
    look: u32,
}

/// A number and `ms`, `s`, `m` or `h`; without a unit, seconds.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let factor = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("must be a number and ms, s, m or h".into()),
    };
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
    number.map(|number| number * factor).filter(|seconds| seconds.is_finite()).ok_or_else(|| "must begin with a number".into())
}

/// A span, for people and programs.
#[derive(Serialize)]
struct Row {
    #[serde(skip)]
    at: String,
    id: String,
    parent_id: String,
    turn_id: String,
    session_id: String,
    agent_id: String,
    principal: String,
    name: String,
    operation: String,
    started: Option<String>,
    ended: Option<String>,
    /// Unset while it runs.
    seconds: Option<f64>,
    attributes: BTreeMap<String, String>,
    error: Option<String>,
}

fn row(record: SpanRecord) -> Row {
    let span = record.span.unwrap_or_default();
    let took = span.started.zip(span.ended);
    let failed = span.error.map(|error| if error.message.is_empty() { error.code } else { error.message });
    Row {
        at: span.started.map(told).unwrap_or_default(),
        seconds: took
            .map(|(from, to)| to.seconds.saturating_sub(from.seconds) as f64 + f64::from(to.nanos.saturating_sub(from.nanos)) / 1e9),
        error: failed.or_else(|| span.attributes.get("error.type").cloned()),
        started: span.started.map(|time| time.to_string()),
        ended: span.ended.map(|time| time.to_string()),
        id: span.id,
        parent_id: span.parent_id,
        name: span.name,
        operation: span.operation,
        attributes: span.attributes.into_iter().collect(),
        turn_id: record.turn_id,
        session_id: record.session_id,
        agent_id: record.agent_id,
        principal: record.principal,
    }
}

pub(crate) async fn run(args: SpansArgs, output: &Output) -> Result<()> {
    let server = args.server.server;
    let attributes = args.attribute.iter().map(|text| named::pair("--attribute", text)).collect::<Result<_>>()?;
    let since = args.hours.map(|hours| Timestamp { seconds: ids::now().seconds.saturating_sub(i64::from(hours) * 3_600), nanos: 0 });
    let mut request = ListSpansRequest {
        operation: args.operation,
        name: args.name,
        session_id: args.session,
        agent_id: args.agent,
        principal: args.principal,
        since,
        only_errors: args.errors,
        min_seconds: args.slower_than.unwrap_or_default(),
        attributes,
        ..Default::default()
    };
    let remote = Remote::<TelemetryClient<Channel>>::new(reach::connect(&server)?);
    let cx = caller();
    let working = output.working("looking at turns");
    let (mut records, mut left) = (Vec::new(), args.look);
    while records.len() < args.limit {
        if left == 0 {
            output.note(&format!("older turns were not looked at: --look {} looks at twice as many", args.look.saturating_mul(2)));
            break;
        }
        request.page_size = u32::try_from(args.limit - records.len()).unwrap_or(PAGE).min(PAGE);
        let page = remote.list_spans(&cx, request.clone()).await.map_err(|error| reach::explained(error, &server))?;
        records.extend(page.spans);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        left -= 1;
    }
    drop(working);
    let rows: Vec<Row> = records.into_iter().map(row).collect();
    output.result(&rows, |rows| {
        let cells = rows.iter().map(|row| {
            let took = row.seconds.map_or_else(|| "runs".to_owned(), |seconds| format!("{seconds:.3} s"));
            let [at, name, turn, principal] = [&row.at, &row.name, &row.turn_id, &row.principal].map(Clone::clone);
            [at, took, name, turn, principal, row.error.clone().unwrap_or_default()]
        });
        table(["AT", "TOOK", "SPAN", "TURN", "PRINCIPAL", "ERROR"], cells)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, expected) in [("2s", 2.0), ("250ms", 0.25), ("1.5m", 90.0), ("1h", 3_600.0), ("3", 3.0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "s", "-1s", "1 s", "2 days", "1.2.3s", "NaN", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
