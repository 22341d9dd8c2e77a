//! Files of a vector store: each is a document of the bank, with the file's id.

use axum::{
    extract::State,
    routing::{get, post},
};
use futures::FutureExt as _;
use llama_stack_core::{Code, Context, Error, Result, attributes, ids as core_ids};
use llama_stack_proto::v1::{
    DeleteDocumentsRequest, Document, DocumentStatus, ErrorInfo, GetDocumentRequest, ListChunksRequest, ListDocumentsRequest,
    UpdateDocumentRequest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    attributes as bounded, chunking,
    ids::{find, no_file, no_store, store_id},
    insert::{self, AddFile},
    page::{List, ListQuery, PAGE},
};
use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/vector_stores/{id}/files"), route!("/v1/vector_stores/{id}/files/{file_id}"));
    let operation = Operation::new("Adds an uploaded file, which is read in the background.");
    api.post(all, post(create).get(list), operation.takes::<AddFile>().returns::<VectorStoreFile>());
    api.describe(all, "get", Operation::new("The files of a vector store, newest first.").returns::<List<VectorStoreFile>>());
    api.get(one, get(retrieve).post(update).delete(delete), Operation::new("A file of a vector store.").returns::<VectorStoreFile>());
    let operation = Operation::new("Replaces a file's attributes.");
    api.describe(one, "post", operation.takes::<UpdateFile>().returns::<VectorStoreFile>());
    api.describe(one, "delete", Operation::new("Takes a file out of a vector store; the file itself stays.").returns::<Deleted>());
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VectorStoreFile {
    pub(super) id: String,
    object: &'static str,
    created_at: i64,
    vector_store_id: String,
    /// `in_progress`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    last_error: Option<LastError>,
    usage_bytes: u64,
    attributes: Map<String, Value>,
    chunking_strategy: Value,
    /// Not OpenAI's.
    filename: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LastError {
    /// `invalid_file`, `unsupported_file` or `server_error`.
    code: &'static str,
    message: String,
}

impl From<&ErrorInfo> for LastError {
    fn from(error: &ErrorInfo) -> Self {
        let code = match Code::from_name(&error.code) {
            _ if error.reason == "unsupported_media_type" => "unsupported_file",
            // A file that unpacks to too much is wrong itself, and another attempt would end no better.
            _ if error.reason == "parser_limits" => "invalid_file",
            Code::Unimplemented => "unsupported_file",
            Code::InvalidArgument | Code::TooLarge | Code::FailedPrecondition | Code::NotFound => "invalid_file",
            _ => "server_error",
        };
        Self { code, message: error.message.clone() }
    }
}

pub(super) fn status(status: DocumentStatus) -> &'static str {
    match status {
        DocumentStatus::InProgress => "in_progress",
        DocumentStatus::Completed | DocumentStatus::Unspecified => "completed",
        DocumentStatus::Failed => "failed",
        DocumentStatus::Cancelled => "cancelled",
    }
}

impl VectorStoreFile {
    pub(super) fn new(document: Document, bank_id: &str) -> Self {
        Self {
            object: "vector_store.file",
            created_at: core_ids::unix_seconds(document.created.as_ref()),
            vector_store_id: store_id(bank_id),
            status: status(document.status()),
            last_error: document.error.as_ref().map(LastError::from),
            usage_bytes: document.bytes,
            attributes: attributes::to_json(&document.attributes),
            chunking_strategy: chunking::show(document.chunking.as_ref()),
            id: document.id,
            filename: document.title,
        }
    }
}

async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<AddFile>,
) -> Result<Json<VectorStoreFile>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    let file_id = body.file_id.clone();
    let documents = insert::documents(&state, &cx, vec![(String::new(), body)]).await?;
    insert::begin(&state, &cx, &id, &bank.id, documents).await?;
    Ok(Json(VectorStoreFile::new(document(&state, &cx, &id, &bank.id, &file_id).await?, &bank.id)))
}

async fn document(state: &AppState, cx: &Context, store: &str, bank_id: &str, file_id: &str) -> Result<Document> {
    let request = GetDocumentRequest { bank_id: bank_id.to_owned(), document_id: file_id.to_owned(), ..GetDocumentRequest::default() };
    state.memory.get_document(cx, request).await.map_err(|error| no_file(error, store, file_id))
}

async fn list(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<List<VectorStoreFile>>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    Ok(Json(window(&state, &cx, &bank.id, "", &query).await?))
}

/// The files of a store, or of one ingestion.
pub(super) async fn window(
    state: &AppState,
    cx: &Context,
    bank_id: &str,
    ingestion_id: &str,
    query: &ListQuery,
) -> Result<List<VectorStoreFile>> {
    let (newest_first, status) = (query.newest_first()?, filter(query.filter.as_deref())?);
    let next = |page_token| {
        let request = ListDocumentsRequest {
            bank_id: bank_id.to_owned(),
            page_size: PAGE,
            page_token,
            newest_first,
            status: status.into(),
            ingestion_id: ingestion_id.to_owned(),
        };
        async move {
            let page = state.memory.list_documents(cx, request).await.map_err(|error| no_store(error, &store_id(bank_id)))?;
            let files = page.documents.into_iter().map(|document| VectorStoreFile::new(document, bank_id));
            Ok((files.collect(), page.next_page_token))
        }
        .boxed()
    };
    query.window(|file: &VectorStoreFile| file.id.clone(), next).await
}

fn filter(name: Option<&str>) -> Result<DocumentStatus> {
    match name {
        None => Ok(DocumentStatus::Unspecified),
        Some("in_progress") => Ok(DocumentStatus::InProgress),
        Some("completed") => Ok(DocumentStatus::Completed),
        Some("failed") => Ok(DocumentStatus::Failed),
        Some("cancelled") => Ok(DocumentStatus::Cancelled),
        Some(other) => Err(Error::invalid("filter", format!("filter must be in_progress, completed, failed or cancelled, not {other:?}"))),
    }
}

async fn retrieve(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, file_id)): Path<(String, String)>,
) -> Result<Json<VectorStoreFile>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    Ok(Json(VectorStoreFile::new(document(&state, &cx, &id, &bank.id, &file_id).await?, &bank.id)))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "UpdateVectorStoreFile")]
struct UpdateFile {
    /// In place of all that there are. Null: none.
    attributes: Option<Map<String, Value>>,
}

async fn update(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, file_id)): Path<(String, String)>,
    Json(body): Json<UpdateFile>,
) -> Result<Json<VectorStoreFile>, ApiError> {
    let attributes = bounded::read("attributes", body.attributes.as_ref())?;
    let bank = find(&state, &cx, &id).await?;
    let request = UpdateDocumentRequest { bank_id: bank.id.clone(), document_id: file_id.clone(), attributes, title: None };
    let document = state.memory.update_document(&cx, request).await.map_err(|error| no_file(error, &id, &file_id))?;
    Ok(Json(VectorStoreFile::new(document, &bank.id)))
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreFileDeleted")]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, file_id)): Path<(String, String)>,
) -> Result<Json<Deleted>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    document(&state, &cx, &id, &bank.id, &file_id).await?;
    let request = DeleteDocumentsRequest { bank_id: bank.id, document_ids: vec![file_id.clone()], ..DeleteDocumentsRequest::default() };
    state.memory.delete_documents(&cx, request).await.map_err(|error| no_file(error, &id, &file_id))?;
    Ok(Json(Deleted { id: file_id, object: "vector_store.file.deleted", deleted: true }))
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreFileContent")]
pub(super) struct Content {
    object: &'static str,
    /// The chunks, in the order in which they stand in the file.
    data: Vec<Text>,
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreFileText")]
struct Text {
    r#type: &'static str,
    text: String,
}

pub(super) async fn content(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, file_id)): Path<(String, String)>,
) -> Result<Json<Content>, ApiError> {
    let bank = find(&state, &cx, &id).await?;
    document(&state, &cx, &id, &bank.id, &file_id).await?;
    let mut request = ListChunksRequest { bank_id: bank.id, document_id: file_id.clone(), page_size: PAGE, ..ListChunksRequest::default() };
    let mut data = Vec::new();
    loop {
        let page = state.memory.list_chunks(&cx, request.clone()).await.map_err(|error| no_file(error, &id, &file_id))?;
        data.extend(page.chunks.into_iter().map(|chunk| Text { r#type: "text", text: chunk.text }));
        if page.next_page_token.is_empty() {
            return Ok(Json(Content { object: "vector_store.file_content.page", data, has_more: false, next_page: None }));
        }
        request.page_token = page.next_page_token;
    }
}
