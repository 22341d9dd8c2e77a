//! `/v1/requests`, `/v1/audit`, `/v1/spans` and `/v1/responses/{id}/trace`.

use std::collections::{BTreeMap, HashMap};

use axum::{extract::State, routing::get};
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{
    AuditEvent, AuditKind, GetTurnTraceRequest, ListAuditEventsRequest, ListRequestsRequest, ListSpansRequest, RequestRecord, SpanRecord,
    TraceSpan,
};
use prost_types::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openai::{conversation_id, no_conversation, response_id, session_id},
    openapi::{Api, Operation, route},
};

pub(crate) fn routes(api: &mut Api) {
    let operation = Operation::new("The latest requests, newest first: the caller's own, and of an admin all of the tenant's.");
    api.get(route!("/v1/requests"), get(list), operation.returns::<RequestList>());
    let operation = Operation::new("The audit log of the tenant, newest first: what policies and shields decided about its callers.");
    api.get(route!("/v1/audit"), get(audit), operation.returns::<AuditList>());
    let operation = Operation::new("Spans of many responses, the newest first: the caller's own, and of an admin all of the tenant's.");
    api.get(route!("/v1/spans"), get(spans), operation.returns::<SpanList>());
    let operation = Operation::new("A response as spans: what it asked of models, tools and shields, and how long that took.");
    api.get(route!("/v1/responses/{id}/trace"), get(trace), operation.returns::<Trace>());
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    /// 1 to 1,000; default 100.
    limit: Option<u32>,
    /// `next_page` of the page before.
    #[serde(default)]
    page: String,
    /// Only of this route, as it is listed.
    #[serde(default)]
    route: String,
    /// Only with this code, as it is listed.
    #[serde(default)]
    code: String,
    /// Only of this caller.
    #[serde(default)]
    principal: String,
    /// Seconds since 1970: only those that began then or later.
    since: Option<f64>,
    /// Seconds since 1970: only those that began before.
    until: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RequestList {
    object: &'static str,
    data: Vec<RequestObject>,
    /// Null on the last page.
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Request")]
struct RequestObject {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    started_at: f64,
    method: String,
    route: String,
    /// The HTTP status, or gRPC's code by name.
    code: String,
    seconds: f64,
    principal: String,
}

impl From<RequestRecord> for RequestObject {
    fn from(record: RequestRecord) -> Self {
        Self {
            object: "request",
            started_at: seconds(record.started).unwrap_or_default(),
            id: record.id,
            method: record.method,
            route: record.route,
            code: record.code,
            seconds: record.seconds,
            principal: record.principal,
        }
    }
}

async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<ListQuery>) -> Result<Json<RequestList>, ApiError> {
    let ListQuery { limit, page, route, code, principal, since, until } = query;
    let request = ListRequestsRequest {
        page_size: checked(limit)?,
        route,
        page_token: page,
        code,
        principal,
        since: moment("since", since)?,
        until: moment("until", until)?,
    };
    let listed = state.history.list_requests(&cx, request).await.map_err(of_page)?;
    let data = listed.requests.into_iter().map(RequestObject::from).collect();
    Ok(Json(RequestList { object: "list", data, next_page: some(listed.next_page_token) }))
}

fn checked(limit: Option<u32>) -> Result<u32> {
    let limit = limit.unwrap_or(100);
    if (1..=1_000).contains(&limit) { Ok(limit) } else { Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to 1000"))) }
}

fn moment(field: &'static str, seconds: Option<f64>) -> Result<Option<Timestamp>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if !(0.0..=1e11).contains(&seconds) {
        return Err(Error::invalid(field, format!("{field} must be seconds since 1970")));
    }
    Ok(Some(Timestamp { seconds: seconds as i64, nanos: (seconds.fract() * 1e9) as i32 }))
}

/// The page's token is called otherwise here.
pub(crate) fn of_page(error: Error) -> Error {
    if error.field() == Some("page_token") { error.with_field("page") } else { error }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[derive(Debug, Deserialize, JsonSchema)]
struct AuditQuery {
    /// 1 to 1,000; default 100.
    limit: Option<u32>,
    /// `next_page` of the page before.
    #[serde(default)]
    page: String,
    /// Only what this decided: `access`, `tool` or `shield`; or `credential`, those that were refused, for operators.
    kind: Option<String>,
    /// Only with this outcome, as it is listed.
    #[serde(default)]
    outcome: String,
    /// Only on this caller's behalf.
    #[serde(default)]
    principal: String,
    /// Seconds since 1970: only then or later.
    since: Option<f64>,
    /// Seconds since 1970: only before.
    until: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AuditList {
    object: &'static str,
    data: Vec<AuditObject>,
    /// Null on the last page.
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditEvent")]
struct AuditObject {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    at: f64,
    /// Who decided: `access`, `tool`, `shield` or `credential`.
    kind: String,
    principal: String,
    credential: String,
    request_id: String,
    action: String,
    resource_kind: String,
    resource_id: String,
    outcome: String,
    policies: Vec<String>,
    agent_id: String,
    /// Where a refused credential came from.
    address: String,
    /// Why it was refused.
    reason: String,
    /// Above 0: so many more were refused from there in a minute, and are not listed.
    dropped: u64,
}

impl From<AuditEvent> for AuditObject {
    fn from(event: AuditEvent) -> Self {
        Self {
            object: "audit_event",
            at: seconds(event.time).unwrap_or_default(),
            kind: event.kind().as_str_name().trim_start_matches("AUDIT_KIND_").to_lowercase(),
            id: event.id,
            principal: event.principal,
            credential: event.credential,
            request_id: event.request_id,
            action: event.action,
            resource_kind: event.resource_kind,
            resource_id: event.resource_id,
            outcome: event.outcome,
            policies: event.policies,
            agent_id: event.agent_id,
            address: event.address,
            reason: event.reason,
            dropped: event.dropped,
        }
    }
}

async fn audit(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<AuditQuery>) -> Result<Json<AuditList>, ApiError> {
    let AuditQuery { limit, page, kind, outcome, principal, since, until } = query;
    let kind = match kind.as_deref() {
        None => AuditKind::Unspecified,
        Some("access") => AuditKind::Access,
        Some("tool") => AuditKind::Tool,
        Some("shield") => AuditKind::Shield,
        Some("credential") => AuditKind::Credential,
        Some(other) => {
            let message = format!("kind is {other:?}; it must be access, tool, shield or credential");
            return Err(Error::invalid("kind", message).into());
        }
    };
    let (since, until) = (moment("since", since)?, moment("until", until)?);
    let request =
        ListAuditEventsRequest { page_size: checked(limit)?, page_token: page, kind: kind.into(), outcome, principal, since, until };
    let listed = state.history.list_audit_events(&cx, request).await.map_err(of_page)?;
    let data = listed.events.into_iter().map(AuditObject::from).collect();
    Ok(Json(AuditList { object: "list", data, next_page: some(listed.next_page_token) }))
}

#[derive(Debug, Serialize, JsonSchema)]
struct Trace {
    id: String,
    object: &'static str,
    spans: Vec<SpanObject>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Span")]
struct SpanObject {
    id: String,
    parent_id: Option<String>,
    name: String,
    operation: String,
    /// Seconds since 1970.
    started_at: Option<f64>,
    ended_at: Option<f64>,
    attributes: BTreeMap<String, String>,
    error: Option<SpanError>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SpanError {
    code: String,
    message: String,
}

impl From<TraceSpan> for SpanObject {
    fn from(span: TraceSpan) -> Self {
        Self {
            started_at: seconds(span.started),
            ended_at: seconds(span.ended),
            id: span.id,
            parent_id: Some(span.parent_id).filter(|id| !id.is_empty()),
            name: span.name,
            operation: span.operation,
            attributes: span.attributes.into_iter().collect(),
            error: span.error.map(|error| SpanError { code: error.code, message: error.message }),
        }
    }
}

async fn trace(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Trace>, ApiError> {
    let turn_id = id.replacen("resp_", "turn_", 1);
    let trace = state.history.get_turn_trace(&cx, GetTurnTraceRequest { turn_id }).await.map_err(|error| match error.code() {
        Code::NotFound => Error::not_found(format!("no response {id:?}")).with_field("id").with_reason("response_not_found"),
        _ => error,
    })?;
    Ok(Json(Trace { id, object: "trace", spans: trace.spans.into_iter().map(SpanObject::from).collect() }))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct SpanQuery {
    /// 1 to 1,000; default 100.
    limit: Option<u32>,
    /// `next_page` of the page before.
    #[serde(default)]
    page: String,
    /// Only these, for example `chat`, `execute_tool`, `invoke_agent` or `run_shield`.
    #[serde(default)]
    operation: String,
    /// Only with this name, as it is listed.
    #[serde(default)]
    name: String,
    /// Only of this conversation.
    #[serde(default)]
    conversation_id: String,
    /// Only of responses of this agent.
    #[serde(default)]
    agent_id: String,
    /// Only of this caller's responses.
    #[serde(default)]
    principal: String,
    /// Seconds since 1970: only of responses that began then or later.
    since: Option<f64>,
    /// Seconds since 1970: only those that began before.
    until: Option<f64>,
    /// `true`: only those that failed.
    #[serde(default)]
    only_errors: bool,
    /// Only those that took at least so long.
    #[serde(default)]
    min_seconds: f64,
    /// A JSON object of texts: only those that have all of these attributes with these values.
    attributes: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SpanList {
    object: &'static str,
    data: Vec<SpanRecordObject>,
    /// Null on the last page, and there alone: a page may have fewer spans than were asked for, or none.
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SpanRecord")]
struct SpanRecordObject {
    #[serde(flatten)]
    span: SpanObject,
    object: &'static str,
    response_id: String,
    conversation_id: String,
    agent_id: Option<String>,
    /// Whose response it is.
    principal: String,
}

impl From<SpanRecord> for SpanRecordObject {
    fn from(record: SpanRecord) -> Self {
        Self {
            span: record.span.unwrap_or_default().into(),
            object: "span",
            response_id: response_id(&record.turn_id),
            conversation_id: conversation_id(&record.session_id),
            agent_id: some(record.agent_id),
            principal: record.principal,
        }
    }
}

async fn spans(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<SpanQuery>) -> Result<Json<SpanList>, ApiError> {
    let request = ListSpansRequest {
        page_size: checked(query.limit)?,
        page_token: query.page,
        operation: query.operation,
        name: query.name,
        session_id: session_id(&query.conversation_id),
        agent_id: query.agent_id,
        principal: query.principal,
        since: moment("since", query.since)?,
        until: moment("until", query.until)?,
        only_errors: query.only_errors,
        min_seconds: query.min_seconds,
        attributes: attributes(query.attributes.as_deref())?,
    };
    let listed = state.history.list_spans(&cx, request).await.map_err(|error| match error.code() {
        Code::NotFound => no_conversation(error, &query.conversation_id).with_field("conversation_id"),
        _ => of_page(error),
    })?;
    let data = listed.spans.into_iter().map(SpanRecordObject::from).collect();
    Ok(Json(SpanList { object: "list", data, next_page: some(listed.next_page_token) }))
}

fn attributes(json: Option<&str>) -> Result<HashMap<String, String>> {
    let Some(json) = json else { return Ok(HashMap::new()) };
    let wrong = || Error::invalid("attributes", "attributes must be a JSON object of texts");
    serde_json::from_str(json).map_err(|error| wrong().with_source(error))
}

fn seconds(time: Option<Timestamp>) -> Option<f64> {
    time.map(|time| time.seconds as f64 + f64::from(time.nanos) / 1e9)
}
