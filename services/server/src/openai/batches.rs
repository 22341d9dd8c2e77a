//! `/v1/batches`: views of Batches, and how a batch's lines are answered.

mod ask;

use std::collections::HashMap;

use axum::{
    extract::State,
    routing::{get, post},
};
use llama_stack_core::{Code, Error, Result, ids};
use llama_stack_proto::v1::{self, BatchStatus, CancelBatchRequest, CreateBatchRequest, GetBatchRequest, ListBatchesRequest};
use prost_types::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use ask::InProcess;

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/batches"), route!("/v1/batches/{id}"));
    let operation = Operation::new("Runs the requests of a file in the background.");
    api.post(all, post(create).get(list), operation.takes::<CreateBatch>().returns::<BatchObject>());
    api.describe(all, "get", Operation::new("The caller's batches, newest first.").returns::<BatchList>());
    api.get(one, get(retrieve), Operation::new("How a batch gets on.").returns::<BatchObject>());
    let operation = Operation::new("Ends a batch: what has not begun is not run, and what was answered is its output.");
    api.post(route!("/v1/batches/{id}/cancel"), post(cancel), operation.returns::<BatchObject>());
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CreateBatch {
    /// A file with purpose `batch`: JSON lines of `custom_id`, `method`, `url` and `body`.
    input_file_id: String,
    /// `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/responses` or `/v1/moderations`.
    endpoint: String,
    /// `24h`; this stack takes 1h to 168h.
    #[serde(default)]
    completion_window: String,
    metadata: Option<HashMap<String, String>>,
    output_expires_after: Option<ExpiresAfter>,
}

/// When the output and error files go.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "BatchOutputExpiresAfter")]
struct ExpiresAfter {
    /// `created_at`: of the files.
    anchor: String,
    seconds: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Batch")]
struct BatchObject {
    id: String,
    object: &'static str,
    endpoint: String,
    /// That the answers name; null until there is one, and where they name several.
    model: Option<String>,
    errors: Option<Errors>,
    input_file_id: String,
    completion_window: String,
    /// `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`, `cancelling` or `cancelled`.
    status: &'static str,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: Option<i64>,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: Counts,
    /// What the answers up to now used; null of a batch that was made before this was counted.
    usage: Option<Usage>,
    metadata: Option<HashMap<String, String>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchRequestCounts")]
struct Counts {
    total: u64,
    completed: u64,
    failed: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchUsage")]
struct Usage {
    input_tokens: u64,
    input_tokens_details: InputTokens,
    output_tokens: u64,
    output_tokens_details: OutputTokens,
    total_tokens: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchInputTokens")]
struct InputTokens {
    cached_tokens: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchOutputTokens")]
struct OutputTokens {
    reasoning_tokens: u64,
}

impl From<&v1::BatchUsage> for Usage {
    fn from(usage: &v1::BatchUsage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputTokens { cached_tokens: usage.cached_tokens },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputTokens { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.total_tokens(),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchErrors")]
struct Errors {
    object: &'static str,
    data: Vec<LineError>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BatchError")]
struct LineError {
    code: String,
    message: String,
    param: Option<String>,
    line: Option<u64>,
}

impl From<v1::Batch> for BatchObject {
    fn from(batch: v1::Batch) -> Self {
        let seconds = |time: Option<Timestamp>| time.map(|time| time.seconds);
        let status = batch.status();
        let ended_as = |end: BatchStatus| seconds(batch.ended).filter(|_| status == end);
        let told = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let error = |error: &v1::BatchError| LineError {
            code: error.code.clone(),
            message: error.message.clone(),
            param: told(&error.field),
            line: Some(error.line).filter(|line| *line > 0),
        };
        let errors = batch.errors.iter().map(error).collect::<Vec<_>>();
        Self {
            object: "batch",
            errors: Some(errors).filter(|errors| !errors.is_empty()).map(|data| Errors { object: "list", data }),
            model: told(&batch.model),
            status: status.word(),
            output_file_id: told(&batch.output_file_id),
            error_file_id: told(&batch.error_file_id),
            created_at: ids::unix_seconds(batch.created.as_ref()),
            in_progress_at: seconds(batch.started),
            expires_at: seconds(batch.expires),
            finalizing_at: seconds(batch.finalizing),
            completed_at: ended_as(BatchStatus::Completed),
            failed_at: ended_as(BatchStatus::Failed),
            expired_at: ended_as(BatchStatus::Expired),
            cancelling_at: seconds(batch.cancelling),
            cancelled_at: ended_as(BatchStatus::Cancelled),
            request_counts: Counts { total: batch.total, completed: batch.completed, failed: batch.failed },
            usage: batch.usage.as_ref().map(Usage::from),
            metadata: Some(batch.metadata).filter(|metadata| !metadata.is_empty()),
            id: batch.id,
            endpoint: batch.endpoint,
            input_file_id: batch.input_file_id,
            completion_window: batch.completion_window,
        }
    }
}

async fn create(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<CreateBatch>) -> Result<Json<BatchObject>, ApiError> {
    let output_expires_after_seconds = match body.output_expires_after {
        None => 0,
        Some(after) if after.anchor != "created_at" => {
            return Err(Error::invalid("output_expires_after.anchor", "output_expires_after.anchor must be \"created_at\"").into());
        }
        Some(after) if after.seconds == 0 => {
            let message = "output_expires_after.seconds must be 3600 (an hour) to 2592000 (30 days), not 0";
            return Err(Error::invalid("output_expires_after.seconds", message).into());
        }
        Some(after) => after.seconds,
    };
    let request = CreateBatchRequest {
        input_file_id: body.input_file_id,
        endpoint: body.endpoint,
        completion_window: body.completion_window,
        metadata: body.metadata.unwrap_or_default(),
        output_expires_after_seconds,
    };
    Ok(Json(state.batches.create_batch(&cx, request).await?.into()))
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<BatchObject>, ApiError> {
    let batch = state.batches.get_batch(&cx, GetBatchRequest { id: id.clone() }).await;
    Ok(Json(batch.map_err(|error| no_batch(error, &id))?.into()))
}

async fn cancel(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<BatchObject>, ApiError> {
    let batch = state.batches.cancel_batch(&cx, CancelBatchRequest { id: id.clone() }).await;
    Ok(Json(batch.map_err(|error| no_batch(error, &id))?.into()))
}

/// As OpenAI says it.
fn no_batch(error: Error, id: &str) -> Error {
    if error.code() != Code::NotFound {
        return error;
    }
    Error::not_found(format!("No batch found with id '{id}'.")).with_field("id").with_reason("batch_not_found")
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    /// 1 to 100; default 20.
    limit: Option<u32>,
    /// An id, after which to go on.
    #[serde(default)]
    after: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BatchList {
    object: &'static str,
    data: Vec<BatchObject>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<ListQuery>) -> Result<Json<BatchList>, ApiError> {
    let limit = query.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to 100")).into());
    }
    let listed = state.batches.list_batches(&cx, ListBatchesRequest { page_size: limit, page_token: query.after }).await;
    let listed = listed.map_err(|error| if error.field() == Some("page_token") { error.with_field("after") } else { error })?;
    let data: Vec<BatchObject> = listed.batches.into_iter().map(BatchObject::from).collect();
    let id = |batch: Option<&BatchObject>| batch.map(|batch| batch.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Ok(Json(BatchList { object: "list", data, first_id, last_id, has_more: !listed.next_page_token.is_empty() }))
}
