//! Watching a turn: its journal after a number, then what happens live.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Context, Error, EventStream, Result};
use llama_stack_proto::v1::{TurnEvent, turn_event::Event};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    live::{Batch, Cursor, Tail},
    runtime::Shared,
};

/// How often the journal of a turn is read that does not run in this process.
const POLL: Duration = Duration::from_millis(200);

/// # Errors
/// `NotFound`
pub(crate) async fn watch(shared: &Arc<Shared>, cx: &Context, turn_id: &str, after: u64) -> Result<EventStream<TurnEvent>> {
    cx.within(exists(shared, cx.tenant(), turn_id)).await?;
    Ok(Watcher::new(shared, cx, turn_id, after).stream())
}

/// # Errors
/// `NotFound`
pub(crate) async fn exists(shared: &Shared, tenant: &str, turn_id: &str) -> Result<()> {
    // No journal is that long: nothing is read but whether the turn is there.
    shared.parts.store.journal(tenant, turn_id, u64::MAX).await.map(drop)
}

/// Follows one turn.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    tenant: String,
    turn_id: String,
    cursor: Cursor,
    deadline: Option<Instant>,
    tail: Option<Receiver<Tail>>,
    /// Cancels the turn when the stream is dropped.
    cancel: Option<DropGuard>,
}

impl Watcher {
    pub(crate) fn new(shared: &Arc<Shared>, cx: &Context, turn_id: &str, after: u64) -> Self {
        let cursor = Cursor::at(after);
        let deadline = cx.deadline().map(Instant::from_std);
        let (tenant, turn_id) = (cx.tenant().to_owned(), turn_id.to_owned());
        Self { shared: shared.clone(), tenant, turn_id, cursor, deadline, tail: None, cancel: None }
    }

    /// Follows this tail first: the turn may be gone from the tables before the stream is polled.
    pub(crate) fn with_tail(mut self, tail: Receiver<Tail>) -> Self {
        self.tail = Some(tail);
        self
    }

    pub(crate) fn cancelling(mut self, token: Option<CancellationToken>) -> Self {
        self.cancel = token.map(CancellationToken::drop_guard);
        self
    }

    pub(crate) fn stream(mut self) -> EventStream<TurnEvent> {
        Box::pin(async_stream::try_stream! {
            loop {
                let events = self.before_deadline().await?;
                // Within a journal a turn may rest several times: only the last event counts.
                let rests = events.last().is_none_or(|last| is_rest(last));
                for event in events {
                    yield Arc::unwrap_or_clone(event);
                }
                if rests {
                    break;
                }
            }
            // Seen to its rest: dropping the stream is no disconnection any more.
            self.cancel.take().map(DropGuard::disarm);
        })
    }

    async fn before_deadline(&mut self) -> Result<Vec<Arc<TurnEvent>>> {
        let Some(deadline) = self.deadline else { return self.next().await };
        let passed = |_| Error::new(Code::DeadlineExceeded, "the deadline passed before the turn came to rest; it can be watched again");
        tokio::time::timeout_at(deadline, self.next()).await.map_err(passed)?
    }

    /// What comes next; nothing where the turn has come to rest before.
    async fn next(&mut self) -> Result<Vec<Arc<TurnEvent>>> {
        loop {
            if self.tail.is_none() {
                self.tail = self.shared.lives.get(&self.tenant, &self.turn_id).map(|live| live.tail());
            }
            let live = self.tail.is_some();
            let mut moved = false;
            if let Some(tail) = &mut self.tail {
                let batch = {
                    let tail = tail.borrow_and_update();
                    moved = tail.moved();
                    tail.after(&mut self.cursor)
                };
                match batch {
                    Batch::Events(events) => return Ok(events),
                    Batch::Waiting => {
                        // An error means that the sender is gone; the tail then says that it is closed.
                        let _ = tail.changed().await;
                        continue;
                    }
                    Batch::Behind => {}
                    Batch::Closed => self.tail = None,
                }
            }
            let events = match (self.journal(self.cursor.sequence).await, &self.tail) {
                // A turn that was not to be stored took its journal along; its end is in the tail.
                (Err(error), Some(tail)) if error.code() == Code::NotFound => {
                    tail.borrow().skip(&mut self.cursor);
                    continue;
                }
                (events, _) => events?,
            };
            if let Some(last) = events.last() {
                self.cursor = Cursor::at(last.sequence);
                return Ok(events);
            }
            if self.rests().await? {
                return Ok(Vec::new());
            }
            let runs = self.shared.lives.get(&self.tenant, &self.turn_id).is_some();
            if live && !runs && !moved || self.shared.parts.shutdown.is_cancelled() {
                let message = "the turn was interrupted; it goes on when the stack is up again, and can be watched then";
                return Err(Error::unavailable(message).with_reason("turn_interrupted"));
            }
            if !runs {
                // It begins just now, or another process has it, or will have.
                sleep(POLL).await;
            }
        }
    }

    async fn journal(&self, after: u64) -> Result<Vec<Arc<TurnEvent>>> {
        let events = self.shared.parts.store.journal(&self.tenant, &self.turn_id, after).await?;
        if events.last().is_some_and(is_rest) {
            self.shared.lives.settle(&self.tenant, &self.turn_id).await;
        }
        Ok(events.into_iter().map(Arc::new).collect())
    }

    /// Whether the last event that the watcher has is the last for now.
    async fn rests(&self) -> Result<bool> {
        let Some(before) = self.cursor.sequence.checked_sub(1) else { return Ok(false) };
        match self.journal(before).await?.as_slice() {
            [last] => Ok(is_rest(last)),
            [] => Err(Error::invalid("after_sequence", "after_sequence is past the end of this turn's journal")),
            _ => Ok(false),
        }
    }
}

fn is_rest(event: &TurnEvent) -> bool {
    matches!(event.event, Some(Event::Ended(_) | Event::AwaitingTools(_)))
}
