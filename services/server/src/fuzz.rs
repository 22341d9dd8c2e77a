//! Doors for fuzzers: what callers write, before anything is done with it.

use std::net::IpAddr;

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request},
    http::{HeaderMap, HeaderValue},
};
use llama_stack_core::{
    Error, Result,
    manifest::{Network, ProxyHeader},
};
use llama_stack_proto::v1::{Filter, UploadFileRequest};
use serde_json::Value;

use crate::{
    connections::Proxies,
    openai::{files::upload, vector_stores::filters},
};

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

/// Whom a request is from that comes from 10.0.0.1, where all of 10.0.0.0/8 are trusted proxies. None: no header can say that.
pub fn caller(header: &'static str, value: &[u8]) -> Option<IpAddr> {
    let proxies = Network::try_from("10.0.0.0/8".to_owned()).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(header, HeaderValue::from_bytes(value).ok()?);
    let written = if header == "forwarded" { ProxyHeader::Forwarded } else { ProxyHeader::XForwardedFor };
    Some(Proxies(vec![proxies], written).caller(IpAddr::from([10, 0, 0, 1]), &headers))
}
