//! Bodies of requests, which have to come in time.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use llama_stack_core::{Code, Error};
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// A body that comes slower than this, in bytes a second, is late sooner or later.
const RATE: u64 = 1_024;
/// What HTTP answers with 408, which no code has.
pub(crate) const TOO_SLOW: &str = "body_too_slow";

/// A body that fails where it is late. Only time that is spent waiting for the sender counts.
pub(crate) struct Paced {
    inner: Incoming,
    /// Of one pause, and of all pauses together beyond what the bytes have earned.
    patience: Duration,
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(crate) fn new(inner: Incoming, patience: Duration) -> Self {
        Self { inner, patience, received: 0, waited: Duration::ZERO, waiting: None }
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
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some((since, _)) = this.waiting.take() {
                    this.waited += since.elapsed();
                }
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
                this.received += data.map_or(0, |data| data.len() as u64);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let left = this.left();
                let (_, timer) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
                ready!(timer.as_mut().poll(cx));
                // As gRPC tells it; HTTP finds it among the causes.
                Poll::Ready(Some(Err(Box::new(Status::from(error())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn error() -> Error {
    Error::new(Code::DeadlineExceeded, "the body did not arrive in time; send it at once, and faster than a KiB a second")
        .with_reason(TOO_SLOW)
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
