//! The door: before a request's body is read, and before any handler runs.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use llama_stack_core::{Context, Error, Result};
use tonic::{Status, metadata::MetadataMap};

use super::{
    Admitted, Rates,
    account::{Kind, Rate},
};
use crate::{
    grpc,
    http::{ApiError, AppState},
};

/// On a request of this process's own: a line of a batch, which waits where a caller would be refused.
#[derive(Clone, Copy)]
pub(crate) struct OfBatch;

pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let is_grpc = grpc::is_grpc(request.headers());
    if !is_counted(&request, is_grpc) {
        return next.run(request).await;
    }
    let (admitted, rates) = match admit(&state, &request, kind(&request, is_grpc)).await {
        Ok(admitted) => admitted,
        Err((error, rates)) => {
            state.metrics.refused(error.reason().unwrap_or("other").to_owned());
            return refusal(error, rates, is_grpc);
        }
    };
    let mut response = next.run(request).await;
    tell(response.headers_mut(), rates);
    // A body that is there is as good as sent.
    if response.body().size_hint().exact().is_none() {
        response = response.map(|body| Body::new(Held { body, _admitted: admitted }));
    }
    response
}

/// Whoever asks how the server is gets an answer, however busy it is.
fn is_counted(request: &Request, is_grpc: bool) -> bool {
    let path = request.uri().path();
    if is_grpc { !path.starts_with("/grpc.") } else { (path.starts_with("/v1/") && path != "/v1/health") || path.starts_with("/mcp") }
}

/// Whoever has used up their tokens may still look at what there is.
fn kind(request: &Request, is_grpc: bool) -> Kind {
    if request.extensions().get::<OfBatch>().is_some() {
        return Kind::OfBatch;
    }
    let path = request.uri().path();
    let is_look = if is_grpc {
        let method = path.rsplit('/').next().unwrap_or_default();
        ["Get", "List", "Delete", "Cancel", "Watch", "Download"].iter().any(|word| method.starts_with(word))
    } else {
        matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS) || path.ends_with("/cancel")
    };
    if is_look { Kind::Look } else { Kind::Spend }
}

async fn admit(state: &AppState, request: &Request, kind: Kind) -> Result<(Admitted, Rates), (Error, Rates)> {
    let limits = &state.limits;
    let alone = |error| (error, Rates::default());
    let room = if kind == Kind::OfBatch { None } else { Some(limits.enter().map_err(alone)?) };
    if !limits.config.has_quotas() {
        return Ok((Admitted { limits: Arc::clone(limits), subjects: Vec::new(), _room: room }, Rates::default()));
    }
    let cx = caller(request).map_err(alone)?;
    let (mut admitted, rates) = limits.admit(&cx, kind).await?;
    admitted._room = room;
    Ok((admitted, rates))
}

fn caller(request: &Request) -> Result<Context> {
    if let Some(cx) = request.extensions().get::<Context>() {
        return Ok(cx.clone());
    }
    Context::from_metadata(&MetadataMap::from_headers(request.headers().clone()))
}

fn refusal(error: Error, rates: Rates, is_grpc: bool) -> Response {
    let mut response = if is_grpc { Status::from(error).into_http() } else { ApiError::from(error).into_response() };
    tell(response.headers_mut(), rates);
    response
}

/// As OpenAI names and writes them.
fn tell(headers: &mut HeaderMap, rates: Rates) {
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(Rate { limit, left, reset }) = rates.requests {
        put("x-ratelimit-limit-requests", limit.to_string());
        put("x-ratelimit-remaining-requests", left.to_string());
        put("x-ratelimit-reset-requests", written(reset));
    }
    if let Some(Rate { limit, left, reset }) = rates.tokens {
        put("x-ratelimit-limit-tokens", limit.to_string());
        put("x-ratelimit-remaining-tokens", left.to_string());
        put("x-ratelimit-reset-tokens", written(reset));
    }
}

/// `120ms`, `7s`, `6m0s`.
fn written(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

/// A body whose end, or loss, gives the place back.
struct Held {
    body: Body,
    _admitted: Admitted,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
    fn times_are_written_as_clients_read_them() {
        let times = [(120, "120ms"), (7_300, "7s"), (360_000, "6m0s"), (0, "0ms")];
        assert_eq!(times.map(|(millis, _)| written(Duration::from_millis(millis))), times.map(|(_, text)| text.to_owned()));
    }
}
