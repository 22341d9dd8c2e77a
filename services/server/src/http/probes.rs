//! Is it there, is it ready, how is it doing.

use ::http::{HeaderValue, StatusCode, header};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{AppState, Json};
use crate::openapi::{Api, Operation, route};

/// `OK`, or `DRAINING` once a shutdown has begun.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Health {
    status: &'static str,
}

pub(crate) fn routes(api: &mut Api) {
    api.get(route!("/v1/health"), get(health), Operation::new("Whether the stack serves.").returns::<Health>());
    api.get(route!("/livez"), get(live), Operation::new("Whether the process lives. Always 200.").returns::<Health>());
    api.get(
        route!("/readyz"),
        get(ready),
        Operation::new("Whether to send requests here: 200, or 503 while it drains.").returns::<Health>(),
    );
    api.get(route!("/metrics"), get(metrics), Operation::new("Prometheus metrics.").returns_text());
    api.get(route!("/openapi.json"), get(document), Operation::new("This document.").returns_any());
}

async fn live() -> Json<Health> {
    Json(Health { status: "OK" })
}

async fn ready(State(state): State<AppState>) -> Response {
    if state.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "DRAINING" })).into_response();
    }
    Json(Health { status: "OK" }).into_response()
}

async fn health(state: State<AppState>) -> Response {
    ready(state).await
}

async fn metrics(State(state): State<AppState>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response()
}

async fn document() -> Json<serde_json::Value> {
    Json(crate::openapi::document())
}
