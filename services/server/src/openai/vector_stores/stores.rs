//! Vector stores: create, list, retrieve, modify, delete.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    routing::{get, post},
};
use futures::FutureExt as _;
use llama_stack_core::{Error, Result, ids as core_ids};
use llama_stack_proto::v1::{Bank, BankKind, CreateBankRequest, DeleteBankRequest, ListBanksRequest, UpdateBankRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    attributes,
    chunking::{self, Chunking},
    ids::{counted, find, no_store, store_id},
    insert::{self, AddFile},
    page::{List, ListQuery, PAGE},
};
use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

/// Of a bank's metadata: what OpenAI's stores have and banks have not.
const DESCRIPTION: &str = "llama_stack.description";
const MAX_CHARS: usize = 512;
const MAX_DAYS: u64 = 365;
const DAY: u64 = 86_400;

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/vector_stores"), route!("/v1/vector_stores/{id}"));
    let operation = Operation::new("Makes a vector store; its files are read in the background.");
    api.post(all, post(create).get(list), operation.takes::<CreateVectorStore>().returns::<VectorStore>());
    api.describe(all, "get", Operation::new("Vector stores, newest first.").returns::<List<VectorStore>>());
    api.get(one, get(retrieve).post(update).delete(delete), Operation::new("A vector store.").returns::<VectorStore>());
    let operation = Operation::new("Changes a vector store's name, metadata or expiry.");
    api.describe(one, "post", operation.takes::<UpdateVectorStore>().returns::<VectorStore>());
    api.describe(one, "delete", Operation::new("Deletes a vector store; its files stay.").returns::<Deleted>());
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VectorStore {
    id: String,
    object: &'static str,
    created_at: i64,
    name: String,
    description: Option<String>,
    usage_bytes: u64,
    file_counts: FileCounts,
    /// `in_progress` while files are read, then `completed`; `expired`.
    status: &'static str,
    expires_after: Option<ExpiresAfter>,
    expires_at: Option<i64>,
    last_active_at: Option<i64>,
    metadata: BTreeMap<String, String>,
    /// Not OpenAI's.
    embedding_model: String,
    /// Not OpenAI's.
    embedding_dimension: u32,
    /// Not OpenAI's.
    provider_id: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(super) struct FileCounts {
    pub(super) in_progress: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) total: u64,
}

impl FileCounts {
    pub(super) fn new(in_progress: u64, completed: u64, failed: u64, cancelled: u64) -> Self {
        let total = in_progress.saturating_add(completed).saturating_add(failed).saturating_add(cancelled);
        Self { in_progress, completed, failed, cancelled, total }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(super) struct ExpiresAfter {
    /// `last_active_at`.
    anchor: String,
    /// 1 to 365.
    days: u64,
}

impl From<Bank> for VectorStore {
    fn from(bank: Bank) -> Self {
        let count = |status| bank.documents_with(status);
        let file_counts = FileCounts::new(count("in_progress"), count("completed"), count("failed"), count("cancelled"));
        let expired = bank.expires.as_ref().is_some_and(|expires| expires.seconds <= core_ids::now().seconds);
        let status = match file_counts.in_progress {
            _ if expired => "expired",
            0 => "completed",
            _ => "in_progress",
        };
        let days = bank.expires_after_seconds / DAY;
        let mut metadata: BTreeMap<String, String> = bank.metadata.into_iter().collect();
        Self {
            id: store_id(&bank.id),
            object: "vector_store",
            created_at: core_ids::unix_seconds(bank.created.as_ref()),
            name: bank.name,
            description: metadata.remove(DESCRIPTION),
            usage_bytes: bank.bytes_used,
            file_counts,
            status,
            expires_after: (days > 0).then(|| ExpiresAfter { anchor: "last_active_at".into(), days }),
            expires_at: bank.expires.as_ref().map(|expires| expires.seconds),
            last_active_at: bank.last_active.or(bank.created).map(|active| active.seconds),
            metadata,
            embedding_model: bank.embedding_model,
            embedding_dimension: bank.embedding_dimension,
            provider_id: bank.provider_id,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CreateVectorStore {
    name: Option<String>,
    description: Option<String>,
    /// Uploaded files, which are read in the background.
    file_ids: Option<Vec<String>>,
    expires_after: Option<ExpiresAfter>,
    /// Of the files that name none.
    chunking_strategy: Option<Chunking>,
    metadata: Option<BTreeMap<String, String>>,
    /// Not OpenAI's. Default: the memory provider's.
    embedding_model: Option<String>,
    /// Not OpenAI's: of vectors that callers bring, in place of an embedding model.
    embedding_dimension: Option<u32>,
    /// Not OpenAI's: a memory provider. Default: the manifest's first.
    provider_id: Option<String>,
}

async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CreateVectorStore>,
) -> Result<Json<VectorStore>, ApiError> {
    let mut metadata = body.metadata.unwrap_or_default();
    attributes::metadata(&metadata)?;
    let description = body.description.unwrap_or_default();
    for (field, text) in [("name", body.name.as_deref().unwrap_or_default()), ("description", description.as_str())] {
        if text.chars().count() > MAX_CHARS {
            return Err(Error::invalid(field, format!("{field} has at most {MAX_CHARS} characters")).into());
        }
    }
    if !description.is_empty() {
        metadata.insert(DESCRIPTION.into(), description);
    }
    let chunking = chunking::read("chunking_strategy", body.chunking_strategy.as_ref())?;
    // Looked up first, so that a store whose files are wrong is not made.
    let files = body.file_ids.unwrap_or_default().into_iter().enumerate().map(|(index, file_id)| {
        (format!("file_ids[{index}]"), AddFile { file_id, attributes: None, chunking_strategy: body.chunking_strategy.clone() })
    });
    let documents = insert::documents(&state, &cx, files.collect()).await?;
    let request = CreateBankRequest {
        name: body.name.unwrap_or_default(),
        kind: BankKind::Vector.into(),
        provider_id: body.provider_id.unwrap_or_default(),
        embedding_model: body.embedding_model.unwrap_or_default(),
        embedding_dimension: body.embedding_dimension.unwrap_or_default(),
        chunking,
        metadata: metadata.into_iter().collect(),
        expires_after_seconds: expiry(body.expires_after.as_ref())?,
        ..CreateBankRequest::default()
    };
    let bank = state.memory.create_bank(&cx, request).await?;
    if documents.is_empty() {
        return Ok(Json(bank.into()));
    }
    let id = store_id(&bank.id);
    if let Err(error) = insert::begin(&state, &cx, &id, &bank.id, documents).await {
        state.memory.delete_bank(&cx, DeleteBankRequest { id: bank.id }).await?;
        return Err(error.into());
    }
    Ok(Json(counted(&state, &cx, &id).await?.into()))
}

/// In seconds; 0: never.
fn expiry(expires: Option<&ExpiresAfter>) -> Result<u64> {
    let Some(expires) = expires else { return Ok(0) };
    if expires.anchor != "last_active_at" {
        return Err(Error::invalid("expires_after.anchor", "expires_after.anchor must be \"last_active_at\""));
    }
    if !(1..=MAX_DAYS).contains(&expires.days) {
        return Err(Error::invalid("expires_after.days", format!("expires_after.days must be 1 to {MAX_DAYS}, not {}", expires.days)));
    }
    Ok(expires.days * DAY)
}

async fn list(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<VectorStore>>, ApiError> {
    let newest_first = query.newest_first()?;
    let (state, cx) = (&state, &cx);
    let next = |page_token| {
        let request =
            ListBanksRequest { page_size: PAGE, page_token, newest_first, kind: BankKind::Vector.into(), ..ListBanksRequest::default() };
        async move {
            let page = state.memory.list_banks(cx, request).await?;
            Ok((page.banks.into_iter().map(VectorStore::from).collect(), page.next_page_token))
        }
        .boxed()
    };
    Ok(Json(query.window(|store: &VectorStore| store.id.clone(), next).await?))
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<VectorStore>, ApiError> {
    Ok(Json(counted(&state, &cx, &id).await?.into()))
}

/// What is left out stays; what is null goes.
#[derive(Debug, Deserialize, JsonSchema)]
struct UpdateVectorStore {
    #[serde(default, deserialize_with = "present")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    metadata: Option<Option<BTreeMap<String, String>>>,
    #[serde(default, deserialize_with = "present")]
    expires_after: Option<Option<ExpiresAfter>>,
}

/// Tells null from nothing.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

async fn update(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<UpdateVectorStore>,
) -> Result<Json<VectorStore>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    let replace_metadata = body.metadata.is_some();
    let mut metadata = body.metadata.flatten().unwrap_or_default();
    attributes::metadata(&metadata)?;
    if let Some(description) = bank.metadata.get(DESCRIPTION).filter(|_| replace_metadata) {
        metadata.insert(DESCRIPTION.into(), description.clone());
    }
    let request = UpdateBankRequest {
        id: bank.id,
        name: body.name.map(Option::unwrap_or_default),
        metadata: metadata.into_iter().collect(),
        replace_metadata,
        expires_after_seconds: body.expires_after.map(|expires| expiry(expires.as_ref())).transpose()?,
        shared: None,
    };
    Ok(Json(state.memory.update_bank(&cx, request).await.map_err(|error| no_store(error, &id))?.into()))
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreDeleted")]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    state.memory.delete_bank(&cx, DeleteBankRequest { id: bank.id }).await.map_err(|error| no_store(error, &id))?;
    Ok(Json(Deleted { id, object: "vector_store.deleted", deleted: true }))
}
