//! File batches: a batch is an ingestion, and its files are the documents that it brought.

use axum::{
    extract::State,
    routing::{get, post},
};
use llama_stack_core::{Error, Result, ids as core_ids};
use llama_stack_proto::v1::{CancelIngestionRequest, GetIngestionRequest, Ingestion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    chunking::Chunking,
    files::{self, VectorStoreFile, status},
    ids::{batch_id, find, ingestion_id, no_batch, store_id},
    insert::{self, AddFile},
    page::{List, ListQuery},
    stores::FileCounts,
};
use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/vector_stores/{id}/file_batches"), route!("/v1/vector_stores/{id}/file_batches/{batch_id}"));
    let operation = Operation::new("Adds files, which are read in the background.");
    api.post(all, post(create), operation.takes::<CreateBatch>().returns::<FileBatch>());
    api.get(one, get(retrieve), Operation::new("How a batch of files gets on.").returns::<FileBatch>());
    let cancel_path = route!("/v1/vector_stores/{id}/file_batches/{batch_id}/cancel");
    let operation = Operation::new("Ends a batch: what has not begun is not read.");
    api.post(cancel_path, post(cancel), operation.returns::<FileBatch>());
    let files = route!("/v1/vector_stores/{id}/file_batches/{batch_id}/files");
    api.get(files, get(list), Operation::new("The files of a batch, newest first.").returns::<List<VectorStoreFile>>());
}

/// Either `file_ids`, with what holds for all of them, or `files`.
#[derive(Debug, Deserialize, JsonSchema)]
struct CreateBatch {
    file_ids: Option<Vec<String>>,
    files: Option<Vec<AddFile>>,
    attributes: Option<Map<String, Value>>,
    chunking_strategy: Option<Chunking>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreFileBatch")]
struct FileBatch {
    id: String,
    object: &'static str,
    created_at: i64,
    vector_store_id: String,
    /// `in_progress`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    file_counts: FileCounts,
}

impl FileBatch {
    fn new(ingestion: &Ingestion, bank_id: &str) -> Self {
        let Ingestion { documents, completed, failed, cancelled, .. } = *ingestion;
        let ended = completed.saturating_add(failed).saturating_add(cancelled);
        let counts = [documents.saturating_sub(ended), completed, failed, cancelled].map(u64::from);
        let [in_progress, completed, failed, cancelled] = counts;
        Self {
            id: batch_id(&ingestion.id),
            object: "vector_store.files_batch",
            created_at: core_ids::unix_seconds(ingestion.created.as_ref()),
            vector_store_id: store_id(bank_id),
            status: status(ingestion.status()),
            file_counts: FileCounts::new(in_progress, completed, failed, cancelled),
        }
    }
}

async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<CreateBatch>,
) -> Result<Json<FileBatch>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    let files: Vec<(String, AddFile)> = match (body.file_ids, body.files) {
        (Some(ids), None) => {
            let (attributes, chunking) = (body.attributes, body.chunking_strategy);
            let file = |(index, file_id)| {
                (format!("file_ids[{index}]"), AddFile { file_id, attributes: attributes.clone(), chunking_strategy: chunking.clone() })
            };
            ids.into_iter().enumerate().map(file).collect()
        }
        (None, Some(_)) if body.attributes.is_some() || body.chunking_strategy.is_some() => {
            return Err(Error::invalid("files", "with files, attributes and chunking_strategy are said of each file").into());
        }
        (None, Some(files)) => files.into_iter().enumerate().map(|(index, file)| (format!("files[{index}]"), file)).collect(),
        _ => return Err(Error::invalid("file_ids", "a batch has file_ids or files, not both and not neither").into()),
    };
    if files.is_empty() {
        return Err(Error::invalid("file_ids", "a batch has at least one file").into());
    }
    let documents = insert::documents(&state, &cx, files).await?;
    let ingestion = insert::begin(&state, &cx, &id, &bank.id, documents).await?;
    Ok(Json(FileBatch::new(&ingestion, &bank.id)))
}

async fn retrieve(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, batch)): Path<(String, String)>,
) -> Result<Json<FileBatch>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    let request = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion_id(&batch) };
    let ingestion = state.memory.get_ingestion(&cx, request).await.map_err(|error| no_batch(error, &id, &batch))?;
    Ok(Json(FileBatch::new(&ingestion, &bank.id)))
}

async fn cancel(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, batch)): Path<(String, String)>,
) -> Result<Json<FileBatch>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    let request = CancelIngestionRequest { bank_id: bank.id.clone(), id: ingestion_id(&batch) };
    let ingestion = state.memory.cancel_ingestion(&cx, request).await.map_err(|error| no_batch(error, &id, &batch))?;
    Ok(Json(FileBatch::new(&ingestion, &bank.id)))
}

async fn list(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, batch)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<VectorStoreFile>>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    let request = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion_id(&batch) };
    let ingestion = state.memory.get_ingestion(&cx, request).await.map_err(|error| no_batch(error, &id, &batch))?;
    Ok(Json(files::window(&state, &cx, &bank.id, &ingestion.id, &query).await?))
}
