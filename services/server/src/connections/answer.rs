//! Bodies of answers, which have to be read in time.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::Busy;

/// The answers of one connection that are under way.
#[derive(Default)]
pub(crate) struct Answers(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    next: u64,
    /// By their number.
    under_way: HashMap<u64, Arc<Shared>>,
}

/// A body that can be given up from outside.
pub(crate) struct Watched {
    answers: Arc<Answers>,
    number: u64,
    shared: Arc<Shared>,
}

struct Shared(Mutex<Inner>);

struct Inner {
    /// None once it was given up.
    body: Option<(Body, Busy)>,
    /// When there was something to read last, where nobody has come back since.
    unread: Option<Instant>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    pub(crate) fn watch(self: &Arc<Self>, body: Body, busy: Busy) -> Watched {
        let shared = Arc::new(Shared(Mutex::new(Inner { body: Some((body, busy)), unread: Some(Instant::now()) })));
        let mut listed = self.listed();
        listed.next += 1;
        let number = listed.next;
        listed.under_way.insert(number, shared.clone());
        Watched { answers: self.clone(), number, shared }
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up answers that nobody has read from for `patience`, and with each what makes it.
    pub(crate) fn give_up(&self, patience: Duration) {
        let under_way: Vec<Arc<Shared>> = self.listed().under_way.values().cloned().collect();
        for shared in under_way {
            let given_up = {
                let mut inner = shared.inner();
                if inner.unread.is_some_and(|since| since.elapsed() >= patience) { inner.body.take() } else { None }
            };
            // Dropped without a lock: a body's end may do much.
            if given_up.is_some() {
                tracing::info!("a client does not read; its answer is given up");
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.answers.listed().under_way.remove(&self.number);
        let body = self.shared.inner().body.take();
        drop(body);
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut inner = self.shared.inner();
        let Some((body, _)) = &mut inner.body else {
            return Poll::Ready(Some(Err(axum::Error::new("the answer was not read in time"))));
        };
        let frame = Pin::new(body).poll_frame(cx);
        inner.unread = frame.is_ready().then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.shared.inner().body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.inner().body.as_ref().map(|(body, _)| body.size_hint()).unwrap_or_default()
    }
}
