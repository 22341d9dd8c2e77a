//! `/v1/backup` and `/v1/erase`: what operators do with all that a stack keeps.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::TryStreamExt as _;
use llama_stack_proto::v1::{BackupRequest, EraseRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json},
    openapi::{Api, Operation, route},
};

pub(crate) fn routes(api: &mut Api) {
    let operation = Operation::new("All that the stack keeps, as a tar archive for `llama-stack restore`. A broken one ends early.");
    api.get(route!("/v1/backup"), get(backup), operation.returns_any());
    let operation = Operation::new("Deletes all that a tenant has, or one principal of it.").takes::<Erase>().returns::<Erased>();
    api.post(route!("/v1/erase"), post(erase), operation);
}

/// A failure in the middle breaks the connection off: the archive's last member, which proves that it is whole, is missing then.
async fn backup(State(state): State<AppState>, Caller(cx): Caller) -> Result<Response, ApiError> {
    let chunks = state.info.backup(&cx, BackupRequest {}).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-tar"), (header::CONTENT_DISPOSITION, "attachment; filename=\"llama-stack.tar\"")];
    Ok((headers, Body::from_stream(chunks.map_ok(|chunk| bytes::Bytes::from(chunk.data)))).into_response())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Erase {
    tenant: String,
    /// Only what is theirs. Default: all that the tenant has.
    #[serde(default)]
    principal: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Erased {
    object: &'static str,
    /// How many of each kind were deleted.
    deleted: BTreeMap<String, u64>,
}

async fn erase(State(state): State<AppState>, Caller(cx): Caller, Json(request): Json<Erase>) -> Result<Json<Erased>, ApiError> {
    let request = EraseRequest { tenant: request.tenant, principal: request.principal };
    let deleted = state.info.erase(&cx, request).await?.deleted.into_iter().collect();
    Ok(Json(Erased { object: "erasure", deleted }))
}
