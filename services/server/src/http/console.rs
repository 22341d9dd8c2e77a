//! The playground: pages that a browser loads from this binary, and talks to the API with.
//!
//! ```text
//! /, /docs              index.html, asked for again each time
//! /console/proto        every .proto file, one after the other
//! /console/{file}       scripts and styles, whose names hold a hash of what is in them: kept for ever
//! ```
//!
//! The files are built from `console/src` by `npm run build` there, and committed.

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::{
    Router,
    extract::{OriginalUri, Path},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};

use llama_stack_core::{Code, Error};

use super::{ApiError, AppState};

#[derive(RustEmbed)]
#[folder = "console/dist"]
struct Files;

/// The contract of gRPC as it is written, for the reference: its comments are in no descriptor.
#[derive(RustEmbed)]
#[folder = "../../proto/llama_stack/v1"]
struct Protos;

const PAGE: &str = "index.html";
/// Of `Protos`, below `/console`.
const CONTRACT: &str = "proto";
/// Nothing but what this server has, and nobody may frame it: an answer of a model that is shown as a page can do no harm.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FOREVER: &str = "public, max-age=31536000, immutable";

/// Pages are no part of the API, so the OpenAPI document does not name them.
pub(super) fn routes() -> Router<AppState> {
    let routes = Router::new().route("/", get(page)).route("/docs", get(page)).route("/console/{file}", get(asset));
    routes.method_not_allowed_fallback(super::wrong_method)
}

async fn page(headers: HeaderMap, uri: OriginalUri) -> Response {
    // Whoever asks for JSON is a program, and is told what it was told before there was a page.
    if prefers_json(&headers) {
        return missing(uri.path());
    }
    match Files::get(PAGE) {
        Some(file) => answer(PAGE, &file, &headers, "no-cache"),
        None => missing(uri.path()),
    }
}

async fn asset(headers: HeaderMap, uri: OriginalUri, Path(name): Path<String>) -> Response {
    if name == CONTRACT {
        return protos();
    }
    match Files::get(&name).filter(|_| name != PAGE) {
        Some(file) => answer(&name, &file, &headers, FOREVER),
        None => missing(uri.path()),
    }
}

fn protos() -> Response {
    let mut names: Vec<_> = Protos::iter().filter(|name| name.ends_with(".proto")).collect();
    names.sort_unstable();
    let texts: Vec<String> = names.iter().filter_map(|name| Some(String::from_utf8_lossy(&Protos::get(name)?.data).into_owned())).collect();
    let told = [(header::CONTENT_TYPE, kind("proto.txt")), (header::CACHE_CONTROL, "no-cache")];
    (told, texts.join("\n")).into_response()
}

fn prefers_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

fn missing(path: &str) -> Response {
    let message = format!("no route GET {path}; GET /openapi.json lists what there is");
    ApiError::from(Error::new(Code::NotFound, message).with_reason("unknown_route")).into_response()
}

fn answer(name: &str, file: &EmbeddedFile, headers: &HeaderMap, kept: &'static str) -> Response {
    let tag = tag(file);
    let had = headers.get(header::IF_NONE_MATCH).and_then(|given| given.to_str().ok());
    let mut response = if had.is_some_and(|given| given.split(',').any(|given| given.trim() == tag || given.trim() == "*")) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = file.data.clone().into_owned().into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(name)));
        response
    };
    let told = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        told.insert(header::ETAG, tag);
    }
    told.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    // The page is for those that do not ask for JSON.
    told.insert(header::VARY, HeaderValue::from_static("accept"));
    told.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    told.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    told.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The first half of the file's SHA-256, in quotes.
fn tag(file: &EmbeddedFile) -> String {
    let digits: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

/// Of all kinds of files that the build makes.
fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
