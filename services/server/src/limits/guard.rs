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
use llama_stack_core::{Authenticated, Code, Context, Error, Result};
use tonic::{Status, metadata::MetadataMap};

use super::{
    Admitted, Rates,
    account::{Kind, Rate},
};
use crate::{
    connections::Crowded,
    grpc,
    history::Begun,
    http::{ApiError, AppState, code, grpc_code, route},
    request_id,
};

/// On a request of this process's own: a line of a batch, which waits where a caller would be refused.
#[derive(Clone, Copy)]
pub(crate) struct OfBatch;

pub(crate) async fn guard(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let is_grpc = grpc::is_grpc(request.headers());
    if !is_counted(&request, is_grpc) {
        return next.run(request).await;
    }
    // Read here, because a request may not be lent across a wait.
    let (kind, is_limited) = (kind(&request, is_grpc), is_limited(&state, &request));
    let caller = (is_limited || state.requests.is_on()).then(|| caller(&mut request));
    let mut begun = caller.as_ref().and_then(|caller| begin(&state, &request, caller.as_ref().ok()?));
    let crowded = request.extensions().get::<Crowded>().copied();
    let (admitted, rates) = match admit(&state, kind, caller.filter(|_| is_limited), crowded).await {
        Ok(admitted) => admitted,
        Err((error, rates)) => {
            state.metrics.refused(error.reason().unwrap_or("other").to_owned());
            let response = refusal(error, rates, is_grpc);
            note(&mut begun, &response);
            return response;
        }
    };
    let mut response = next.run(request).await;
    note(&mut begun, &response);
    tell(response.headers_mut(), rates);
    // A body that is there is as good as sent.
    if response.body().size_hint().exact().is_none() {
        response = response.map(|body| Body::new(Held { body, begun, _admitted: admitted }));
    }
    response
}

/// Whether it has to be known who it is from. Keys are limited where the manifest limits nobody, too.
fn is_limited(state: &AppState, request: &Request) -> bool {
    let (who, inner) = (request.extensions().get::<Authenticated>(), request.extensions().get::<Context>());
    let key = match (inner, who) {
        (Some(cx), _) => cx.key().map(|key| key.quota),
        (None, who) => who.map(|who| who.quota),
    };
    state.limits.limit(key)
}

/// For the log of requests, where there is one.
fn begin(state: &AppState, request: &Request, cx: &Context) -> Option<Begun> {
    let id = request.headers().get(request_id::HEADER).and_then(|id| id.to_str().ok()).unwrap_or_default();
    state.requests.is_on().then(|| state.requests.begin(cx, id, request.method().as_str(), &route(request)))
}

fn note(begun: &mut Option<Begun>, response: &Response) {
    if let Some(begun) = begun {
        begun.answered(&code(response));
    }
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

/// `caller`: none where nobody is limited.
async fn admit(
    state: &AppState,
    kind: Kind,
    caller: Option<Result<Context>>,
    crowded: Option<Crowded>,
) -> Result<(Admitted, Rates), (Error, Rates)> {
    let limits = &state.limits;
    let alone = |error| (error, Rates::default());
    if let Some(Crowded(most)) = crowded {
        let message = format!("this address has {most} requests under way, which is the most");
        let error = Error::new(Code::ResourceExhausted, message).with_reason("rate_limit_exceeded");
        return Err(alone(error.with_retry_after(Duration::from_secs(1))));
    }
    let room = if kind == Kind::OfBatch { None } else { Some(limits.enter().map_err(alone)?) };
    let Some(caller) = caller else {
        return Ok((Admitted { limits: Arc::clone(limits), subjects: Vec::new(), _room: room }, Rates::default()));
    };
    let cx = caller.map_err(alone)?;
    let (mut admitted, rates) = limits.admit(&cx, kind).await?;
    admitted._room = room;
    Ok((admitted, rates))
}

fn caller(request: &mut Request) -> Result<Context> {
    if let Some(cx) = request.extensions().get::<Context>() {
        return Ok(cx.clone());
    }
    // Lent to the metadata map and taken back, so that nothing is copied.
    let metadata = MetadataMap::from_headers(std::mem::take(request.headers_mut()));
    let context = Context::from_request(&metadata, request.extensions());
    *request.headers_mut() = metadata.into_headers();
    context
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
    begun: Option<Begun>,
    _admitted: Admitted,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(begun)) = (&frame, &mut self.begun)
            && let Some(code) = frame.trailers_ref().and_then(grpc_code)
        {
            begun.answered(&code);
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
    fn times_are_written_as_clients_read_them() {
        let times = [(120, "120ms"), (7_300, "7s"), (360_000, "6m0s"), (0, "0ms")];
        assert_eq!(times.map(|(millis, _)| written(Duration::from_millis(millis))), times.map(|(_, text)| text.to_owned()));
    }
}
