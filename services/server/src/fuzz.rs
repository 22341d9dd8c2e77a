//! Doors for fuzzers: what callers write, before anything is done with it.

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request},
};
use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Filter, UploadFileRequest};
use serde_json::Value;

use crate::openai::{files::upload, vector_stores::filters};

/// A filter, and how it would be shown again.
///
/// # Errors
/// `InvalidArgument` with the condition's path.
pub fn filter(written: &Value) -> Result<Option<(Filter, Value)>> {
    let read = filters::read("filters", Some(written))?;
    Ok(read.map(|filter| {
        let shown = filters::show(&filter);
        (filter, shown)
    }))
}

/// An upload out of a form whose parts are parted by `boundary`.
///
/// # Errors
/// `InvalidArgument` for a form that cannot be read.
pub async fn form(boundary: &str, body: Vec<u8>) -> Result<Vec<UploadFileRequest>> {
    let request = Request::builder().header("content-type", format!("multipart/form-data; boundary={boundary}")).body(Body::from(body));
    let request = request.map_err(|error| Error::invalid("boundary", "the boundary is none").with_source(error))?;
    let form = Multipart::from_request(request, &()).await;
    upload::all(form.map_err(|rejection| Error::invalid("form", rejection.body_text()))?).await
}
