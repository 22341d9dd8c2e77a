//! Server-sent events: what a stream of events looks like on the wire.

use std::{convert::Infallible, time::Duration};

use ::http::{HeaderName, HeaderValue};
use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;

use llama_stack_core::{Context, Error, EventStream, Result};

use crate::http::ErrorBody;

/// Proxies and clients give up on a silent connection; a comment this often tells them that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the status line waits for the first event, so that a request that fails at once gets its status.
const FIRST: Duration = Duration::from_secs(1);

/// Turns a service's events into the chunks of one answer.
pub(crate) trait Encode<T>: Send + 'static {
    /// # Errors
    /// Events that break the rules of their stream.
    fn push(&mut self, event: T, out: &mut Vec<Event>) -> Result<()>;

    /// The stream has ended.
    ///
    /// # Errors
    /// Where it ended before the answer did.
    fn finish(&mut self, out: &mut Vec<Event>) -> Result<()>;
}

/// `events` as the body of an answer: a chunk each, then `[DONE]`; an error is the last chunk, and no `[DONE]` follows.
/// Dropping the body drops `events`, and with them the generation.
///
/// # Errors
/// The first event's, where it comes at once.
pub(crate) async fn respond<T: Send + 'static>(cx: Context, events: EventStream<T>, encoder: impl Encode<T>) -> Result<Response> {
    let events = begun(&cx, events).await?;
    Ok(response(chunks(cx, events, encoder)))
}

/// Events that are ready, as an answer that no proxy holds back.
pub(crate) fn response(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let sse = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = sse.into_response();
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// One chunk.
pub(crate) fn data(chunk: &impl Serialize) -> Event {
    // Chunks are structs of strings and numbers: they can be written.
    Event::default().json_data(chunk).unwrap_or_default()
}

/// Waits a moment for the first event, and puts it back.
async fn begun<T: Send + 'static>(cx: &Context, mut events: EventStream<T>) -> Result<EventStream<T>> {
    let first = cx.within(async { Ok(tokio::time::timeout(FIRST, events.next()).await) }).await?;
    match first {
        Ok(Some(first)) => Ok(Box::pin(stream::iter([Ok(first?)]).chain(events))),
        Ok(None) => Ok(Box::pin(stream::empty())),
        Err(_) => Ok(events),
    }
}

fn chunks<T: Send + 'static>(cx: Context, mut events: EventStream<T>, mut encoder: impl Encode<T>) -> impl Stream<Item = Event> + Send {
    async_stream::stream! {
        let mut out = Vec::new();
        loop {
            let event = cx.within(async { events.next().await.transpose() }).await;
            let (written, last) = match event {
                Ok(Some(event)) => (encoder.push(event, &mut out), false),
                Ok(None) => (encoder.finish(&mut out), true),
                Err(error) => (Err(error), true),
            };
            for chunk in out.drain(..) {
                yield chunk;
            }
            if let Err(error) = written {
                yield failed(&cx, &error);
                return;
            }
            if last {
                yield Event::default().data("[DONE]");
                return;
            }
        }
    }
}

/// The last event of an answer that failed.
pub(crate) fn failed(cx: &Context, error: &Error) -> Event {
    let request_id = cx.request_id().unwrap_or_default();
    tracing::warn!(request_id, code = error.code().name(), message = error.message(), cause = ?std::error::Error::source(error), "stream failed");
    data(&ErrorBody::from(error))
}
