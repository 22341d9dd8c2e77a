//! `/v1/requests` and `/v1/responses/{id}/trace`.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, Query, State},
    routing::get,
};
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{GetTurnTraceRequest, ListRequestsRequest, RequestRecord, TraceSpan};
use prost_types::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json},
    openapi::{Api, Operation},
};

pub(crate) fn routes(api: &mut Api) {
    let operation = Operation::new("The latest requests to this process, newest first.");
    api.get("/v1/requests", get(list), operation.returns::<RequestList>());
    let operation = Operation::new("A response as spans: what it asked of models, tools and shields, and how long that took.");
    api.get("/v1/responses/{id}/trace", get(trace), operation.returns::<Trace>());
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    /// 1 to 1,000; default 100.
    limit: Option<u32>,
    /// Only of this route, as it is listed.
    #[serde(default)]
    route: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RequestList {
    object: &'static str,
    data: Vec<RequestObject>,
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
    let limit = query.limit.unwrap_or(100);
    if !(1..=1_000).contains(&limit) {
        return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to 1000")).into());
    }
    let listed = state.history.list_requests(&cx, ListRequestsRequest { page_size: limit, route: query.route }).await?;
    Ok(Json(RequestList { object: "list", data: listed.requests.into_iter().map(RequestObject::from).collect() }))
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

fn seconds(time: Option<Timestamp>) -> Option<f64> {
    time.map(|time| time.seconds as f64 + f64::from(time.nanos) / 1e9)
}
