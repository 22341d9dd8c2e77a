//! A batch's lines ask this process's own routes, without a socket between.

use std::time::Duration;

use ::http::{HeaderValue, Request, header};
use axum::{Router, body::Body};
use bytes::Bytes;
use llama_stack_batches::{Answer, Ask};
use llama_stack_core::{Code, Context, Error};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{http::ErrorBody, limits::OfBatch, request_id};

/// Of one answer: longer than any model's.
const MAX_ANSWER: usize = 64 << 20;

/// The routes, as a port would serve them.
pub(crate) struct InProcess(pub(crate) Router);

#[async_trait::async_trait]
impl Ask for InProcess {
    async fn ask(&self, cx: &Context, endpoint: &str, body: Bytes) -> Answer {
        let asked = cx.request_id().unwrap_or_default().to_owned();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = ::http::Method::POST;
        let Ok(uri) = endpoint.parse() else { return failed(&asked, &Error::invalid("url", "url is no path")) };
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::from_str(&asked) {
            request.headers_mut().insert(request_id::HEADER, id);
        }
        // Who asks was known when the batch was made: it is not read from headers again.
        request.extensions_mut().insert(cx.clone());
        request.extensions_mut().insert(OfBatch);
        let Ok(response) = self.0.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let text = |name: &header::HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = text(&header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let request_id = text(&request_id::HEADER).unwrap_or(&asked).to_owned();
        match axum::body::to_bytes(body, MAX_ANSWER).await {
            Ok(body) => {
                let body = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
                Answer { status: parts.status.as_u16(), request_id, body, retry_after }
            }
            Err(error) => failed(&request_id, &Error::new(Code::Internal, "the answer broke off").with_source(error)),
        }
    }
}

fn failed(request_id: &str, error: &Error) -> Answer {
    let body = serde_json::to_value(ErrorBody::from(error)).unwrap_or(json!({}));
    Answer { status: error.code().http_status(), request_id: request_id.to_owned(), body, retry_after: None }
}
