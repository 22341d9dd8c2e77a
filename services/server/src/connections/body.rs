//! Bodies of requests, which have to come in time.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use llama_stack_core::{Code, Error};
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// A body that comes slower than this, in bytes a second, is late sooner or later.
const RATE: u64 = 1_024;
/// Of a body that nobody reads, so much is taken, for so long.
const UNREAD: u64 = 64 << 20;
const UNREAD_TIME: Duration = Duration::from_secs(5);
/// What HTTP answers with 408, which no code has.
pub(crate) const TOO_SLOW: &str = "body_too_slow";

/// A body that fails where it is late. Only time that is spent waiting for the sender counts.
///
/// What nobody reads of it, since the request was refused before, is read to its end after the answer: a client that is still
/// sending would otherwise see a broken connection in place of the refusal.
pub(crate) struct Paced {
    /// None once nothing more comes of it.
    inner: Option<Incoming>,
    /// Of one pause, and of all pauses together beyond what the bytes have earned.
    patience: Duration,
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(crate) fn new(inner: Incoming, patience: Duration) -> Self {
        Self { inner: Some(inner), patience, received: 0, waited: Duration::ZERO, waiting: None }
    }

    fn left(&self) -> Duration {
        let earned = Duration::from_millis(self.received.saturating_mul(1_000) / RATE);
        self.patience.saturating_add(earned).saturating_sub(self.waited).min(self.patience)
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some((since, _)) = this.waiting.take() {
                    this.waited += since.elapsed();
                }
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.inner = None;
                Poll::Ready(end.map(|end| end.map_err(Into::into)))
            }
            Poll::Pending => {
                let left = this.left();
                let (_, timer) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
                ready!(timer.as_mut().poll(cx));
                this.inner = None;
                // As gRPC tells it; HTTP finds it among the causes.
                Poll::Ready(Some(Err(Box::new(Status::from(error())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take().filter(|inner| !inner.is_end_stream() && inner.size_hint().lower() <= UNREAD) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(UNREAD_TIME, discard(inner)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = UNREAD;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        if left == 0 {
            return;
        }
    }
}

/// What a sender is told who was late. gRPC-Web's translator keeps no more of it than these words.
const TOLD: &str = "the body did not arrive in time; send it at once, and faster than a KiB a second";

fn error() -> Error {
    Error::new(Code::DeadlineExceeded, TOLD).with_reason(TOO_SLOW)
}

/// The same, out of the words of another error.
pub(crate) fn late_by_its_words(message: &str) -> Option<Error> {
    message.contains(TOLD).then(error)
}

/// The failure of a body that was late, where that is among the causes.
pub(crate) fn late(failure: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(failure);
    while let Some(cause) = next {
        if cause.downcast_ref::<Status>().is_some_and(|status| status.code() == tonic::Code::DeadlineExceeded) {
            return Some(error());
        }
        next = cause.source();
    }
    None
}
