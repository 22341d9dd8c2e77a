//! `llama-stack audit`: what policies and shields decided, and which credentials were refused, as a running stack keeps it.

use clap::{Args, ValueEnum};
use llama_stack_core::{Result, Telemetry as _, grpc::Remote, ids};
use llama_stack_proto::v1::{AuditEvent, AuditKind, ListAuditEventsRequest, telemetry_client::TelemetryClient};
use prost_types::Timestamp;
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::ServerArgs,
    caller::caller,
    output::Output,
    reach,
    table::{table, told},
};

/// Largest page.
const PAGE: u32 = 1_000;

#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only what this decided
    #[arg(long)]
    kind: Option<Kind>,
    /// Only with this outcome, for example denied, deny or violation
    #[arg(long, default_value = "")]
    outcome: String,
    /// Only on this caller's behalf
    #[arg(long, default_value = "")]
    principal: String,
    /// Only of the last so many hours
    #[arg(long)]
    hours: Option<u32>,
    /// At most so many, newest first
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Whether a caller may make a call
    Access,
    /// Whether an agent's call of a tool runs
    Tool,
    /// What a shield found
    Shield,
    /// Credentials that were refused (for operators)
    Credential,
}

impl From<Kind> for AuditKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Access => Self::Access,
            Kind::Tool => Self::Tool,
            Kind::Shield => Self::Shield,
            Kind::Credential => Self::Credential,
        }
    }
}

/// A decision, for people and programs.
#[derive(Serialize)]
struct Row {
    id: String,
    at: String,
    kind: String,
    principal: String,
    credential: String,
    request_id: String,
    agent_id: String,
    action: String,
    resource: String,
    outcome: String,
    policies: Vec<String>,
    address: String,
    reason: String,
    dropped: u64,
}

fn row(event: AuditEvent) -> Row {
    let resource = match (event.resource_kind.as_str(), event.resource_id.as_str()) {
        ("", _) if event.dropped > 0 => {
            let from = if event.address.is_empty() { "many places" } else { event.address.as_str() };
            format!("{} more from {from}", event.dropped)
        }
        ("", _) if !event.address.is_empty() => format!("{} from {}", event.reason, event.address),
        ("", _) => String::new(),
        (kind, id) => format!("{kind} {id}"),
    };
    Row {
        kind: event.kind().as_str_name().trim_start_matches("AUDIT_KIND_").to_lowercase(),
        at: event.time.map(told).unwrap_or_default(),
        id: event.id,
        principal: event.principal,
        credential: event.credential,
        request_id: event.request_id,
        agent_id: event.agent_id,
        action: event.action,
        resource,
        outcome: event.outcome,
        policies: event.policies,
        address: event.address,
        reason: event.reason,
        dropped: event.dropped,
    }
}

pub(crate) async fn run(args: AuditArgs, output: &Output) -> Result<()> {
    let server = args.server.server;
    let remote = Remote::<TelemetryClient<Channel>>::new(reach::connect(&server)?);
    let cx = caller();
    let since = args.hours.map(|hours| Timestamp { seconds: ids::now().seconds.saturating_sub(i64::from(hours) * 3_600), nanos: 0 });
    let kind = args.kind.map_or(AuditKind::Unspecified, AuditKind::from).into();
    let mut request = ListAuditEventsRequest { kind, outcome: args.outcome, principal: args.principal, since, ..Default::default() };
    let mut rows: Vec<Row> = Vec::new();
    while rows.len() < args.limit {
        request.page_size = u32::try_from(args.limit - rows.len()).unwrap_or(PAGE).min(PAGE);
        let page = remote.list_audit_events(&cx, request.clone()).await.map_err(|error| reach::explained(error, &server))?;
        rows.extend(page.events.into_iter().map(row));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    output.result(&rows, |rows| {
        let cells = rows.iter().map(|row| {
            let [at, kind, outcome, principal] = [&row.at, &row.kind, &row.outcome, &row.principal].map(Clone::clone);
            [at, kind, outcome, principal, row.action.clone(), row.resource.clone(), row.policies.join(",")]
        });
        table(["AT", "KIND", "OUTCOME", "PRINCIPAL", "ACTION", "WHAT", "POLICIES"], cells)
    })
}
