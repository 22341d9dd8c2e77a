//! Around every request, HTTP or gRPC: its id, its span, its metrics, and its panics.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Instant,
};

use ::http::{HeaderMap, Method, StatusCode};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::SharedString;
use tracing::Instrument;

use llama_stack_core::{Code, Error};

use super::{ApiError, AppState, error::Failure};
use crate::{grpc, metrics::Metrics, request_id};

pub(crate) async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = request_id::ensure(request.headers_mut());
    let mut seen = Seen::new(state.metrics.clone(), &request);
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default(), method = seen.method, route = %seen.route);
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answer.unwrap_or_else(|_| defect());
    span.in_scope(|| report(&response));
    seen.code = code(&response);
    response.headers_mut().insert(request_id::HEADER, id);
    // A body that is there is as good as sent; one that is still being made is watched to its end.
    if response.body().size_hint().exact().is_none() {
        response = response.map(|body| Body::new(Watched { body, seen }));
    }
    response
}

/// What the panic said may quote what was being read; the program's hook has told the log of it.
fn defect() -> Response {
    let error = Error::internal("the server failed on this request").with_reason("internal_error");
    ApiError::from(error.with_source(Error::PANICKED)).into_response()
}

/// The log knows what the client is not told.
fn report(response: &Response) {
    let Some(failure) = response.extensions().get::<Failure>() else { return };
    let (status, error, causes) = (response.status().as_u16(), &failure.0, failure.causes());
    if status >= 500 {
        tracing::error!(status, code = error.code().name(), message = error.message(), cause = causes, "request failed");
    } else {
        tracing::debug!(status, code = error.code().name(), message = error.message(), cause = causes, "request refused");
    }
}

/// One request, counted until it is dropped.
struct Seen {
    metrics: Metrics,
    started: Instant,
    route: SharedString,
    method: &'static str,
    code: SharedString,
}

impl Seen {
    fn new(metrics: Metrics, request: &Request) -> Self {
        metrics.begun();
        // Until there is an answer: whoever asked went away.
        let code = SharedString::const_str("499");
        Self { metrics, started: Instant::now(), route: route(request), method: method(request.method()), code }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.metrics.ended(&self.route, self.method, self.code.clone(), self.started.elapsed());
    }
}

/// As it was registered, never as it was asked for.
pub(crate) fn route(request: &Request) -> SharedString {
    match request.extensions().get::<MatchedPath>() {
        _ if grpc::is_grpc(request.headers()) => grpc::route(request.uri().path()),
        Some(path) => path.as_str().to_owned().into(),
        None => SharedString::const_str("unknown"),
    }
}

/// Methods are the client's to invent; labels are not.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The HTTP status, or gRPC's code by name where the answer has one already.
pub(crate) fn code(response: &Response) -> SharedString {
    match grpc_code(response.headers()) {
        Some(code) => code,
        None if response.status() == StatusCode::OK => SharedString::const_str("200"),
        None => response.status().as_u16().to_string().into(),
    }
}

/// Where an answer, or its end, says it.
pub(crate) fn grpc_code(headers: &HeaderMap) -> Option<SharedString> {
    let code = tonic::Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    Some(SharedString::const_str(if code == tonic::Code::Ok { "OK" } else { Code::from_grpc(code).name() }))
}

/// A body whose end, or loss, ends the observation.
struct Watched {
    body: Body,
    seen: Seen,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(code) = frame.trailers_ref().and_then(grpc_code)
        {
            self.seen.code = code;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_says_is_no_cause_that_is_logged() {
        let response = defect();
        let failure = response.extensions().get::<Failure>().unwrap();
        assert!(failure.causes().contains("a panic"), "{}", failure.causes());
    }
}
