//! `/v1/files`: what clients upload. Bodies are streamed both ways and never whole in memory.

pub(crate) mod upload;

use ::http::{HeaderMap, HeaderValue, header};
use axum::{
    body::Body,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::TryStreamExt as _;
use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{self, DeleteFileRequest, GetFileRequest, ListFilesRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

const MAX_PAGE: u32 = 10_000;

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/files"), route!("/v1/files/{id}"));
    // The service has its own limit, and says it.
    let create = post(upload::create).layer(DefaultBodyLimit::disable());
    api.post(all, create.get(list), Operation::new("Uploads a file.").takes_form::<upload::CreateFile>().returns::<FileObject>());
    api.describe(all, "get", Operation::new("The caller's files, newest first.").returns::<FileList>());
    api.get(one, get(retrieve).delete(delete), Operation::new("What is known of a file.").returns::<FileObject>());
    api.describe(one, "delete", Operation::new("Deletes a file and its content.").returns::<Deleted>());
    api.get(route!("/v1/files/{id}/content"), get(content), Operation::new("A file's content."));
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "File")]
struct FileObject {
    id: String,
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: Option<i64>,
    filename: String,
    purpose: String,
    /// `processed`: it can be used.
    status: &'static str,
    status_details: Option<String>,
}

impl From<v1::File> for FileObject {
    fn from(file: v1::File) -> Self {
        Self {
            object: "file",
            bytes: file.bytes,
            created_at: ids::unix_seconds(file.created.as_ref()),
            expires_at: file.expires.as_ref().map(|time| ids::unix_seconds(Some(time))),
            id: file.id,
            filename: file.filename,
            purpose: file.purpose,
            status: "processed",
            status_details: None,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    /// 1 to 10,000, which is the default.
    limit: Option<u32>,
    /// `desc`, the default, or `asc`.
    order: Option<String>,
    /// An id, after which to go on.
    #[serde(default)]
    after: String,
    #[serde(default)]
    purpose: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FileList {
    object: &'static str,
    data: Vec<FileObject>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<ListQuery>) -> Result<Json<FileList>, ApiError> {
    let limit = query.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to {MAX_PAGE}")).into());
    }
    let newest_first = match query.order.as_deref() {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(_) => return Err(Error::invalid("order", "order must be \"asc\" or \"desc\"").into()),
    };
    let request = ListFilesRequest { purpose: query.purpose, page_size: limit, page_token: query.after, newest_first };
    let listed = state.files.list_files(&cx, request).await;
    let listed = listed.map_err(|error| if error.field() == Some("page_token") { error.with_field("after") } else { error })?;
    let data: Vec<FileObject> = listed.files.into_iter().map(FileObject::from).collect();
    let id = |file: Option<&FileObject>| file.map(|file| file.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Ok(Json(FileList { object: "list", data, first_id, last_id, has_more: !listed.next_page_token.is_empty() }))
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<FileObject>, ApiError> {
    Ok(Json(find(&state, &cx, &id).await?.into()))
}

async fn find(state: &AppState, cx: &Context, id: &str) -> Result<v1::File> {
    state.files.get_file(cx, GetFileRequest { id: id.to_owned() }).await.map_err(|error| no_file(error, id))
}

/// As OpenAI says it.
fn no_file(error: Error, id: &str) -> Error {
    if error.code() != Code::NotFound {
        return error;
    }
    Error::not_found(format!("No such File object: {id}")).with_field("id").with_reason("file_not_found")
}

async fn content(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let file = find(&state, &cx, &id).await?;
    let chunks = state.files.download_file(&cx, GetFileRequest { id: id.clone() }).await.map_err(|error| no_file(error, &id))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, file.bytes.into());
    let kind = HeaderValue::from_str(&file.media_type);
    headers.insert(header::CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    // Whatever it is, a browser saves it and runs none of it.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(named) = HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{}", percent_encoded(&file.filename))) {
        headers.insert(header::CONTENT_DISPOSITION, named);
    }
    Ok((headers, Body::from_stream(chunks.map_ok(|chunk| bytes::Bytes::from(chunk.data)))).into_response())
}

/// Source: RFC 8187, section 3.2: everything but letters, digits and a few marks is written as its bytes.
fn percent_encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    state.files.delete_file(&cx, DeleteFileRequest { id: id.clone() }).await.map_err(|error| no_file(error, &id))?;
    Ok(Json(Deleted { id, object: "file", deleted: true }))
}
