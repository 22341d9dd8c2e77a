//! The turns that run in this process: how to cancel one, and the newest of its events for whoever watches.
//!
//! ```text
//! run ── push ──> Tail: the last events and deltas, in order ──> any number of watchers, each with its own Cursor
//! ```
//!
//! A watcher costs nothing while it sleeps, and one that is slow finds that its place has left the tail: it reads what
//! it missed from the journal. So a turn never waits for a watcher and never buffers for one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{TurnEvent, turn_event::Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events kept for watchers. One is a few hundred bytes, so a turn holds at most about a megabyte.
const KEPT: usize = 4_096;

/// Every turn that runs in this process.
#[derive(Clone, Default)]
pub(crate) struct Lives(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    turns: HashMap<Key, Arc<Live>>,
    /// How many turns run in a session.
    sessions: HashMap<Key, usize>,
}

/// A tenant and an id.
type Key = (String, String);

/// One turn that runs.
pub(crate) struct Live {
    pub(crate) cancel: CancellationToken,
    tail: watch::Sender<Tail>,
}

/// Holds a turn's place among those that run; dropping it tells the watchers that nothing more comes.
pub(crate) struct Running {
    lives: Lives,
    turn: Key,
    session: Key,
    live: Arc<Live>,
}

/// The newest events of a turn.
#[derive(Default)]
pub(crate) struct Tail {
    events: VecDeque<Arc<TurnEvent>>,
    /// The place of the first of `events` among all that were ever pushed.
    start: u64,
    /// The turn does not run here any more.
    closed: bool,
}

/// How far a watcher has come.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// The last journalled event that it has.
    pub(crate) sequence: u64,
    /// Its place in the tail, once it has one.
    place: Option<u64>,
}

/// What a tail has for a cursor.
pub(crate) enum Batch {
    Events(Vec<Arc<TurnEvent>>),
    /// The next event has left the tail: read the journal.
    Behind,
    /// Nothing yet.
    Waiting,
    /// Nothing any more.
    Closed,
}

impl Lives {
    /// Enters a turn of a session. `alone`: only if no other turn runs in the session.
    ///
    /// # Errors
    /// `FailedPrecondition` (`turn_in_progress`): another one runs in the session, or this very one.
    pub(crate) fn enter(&self, tenant: &str, session_id: &str, turn_id: &str, alone: bool) -> Result<Running> {
        let turn = (tenant.to_owned(), turn_id.to_owned());
        let session = (tenant.to_owned(), session_id.to_owned());
        let mut tables = self.lock();
        if tables.turns.contains_key(&turn) || alone && tables.sessions.contains_key(&session) {
            return Err(in_progress(session_id));
        }
        let live = Arc::new(Live { cancel: CancellationToken::new(), tail: watch::Sender::new(Tail::default()) });
        *tables.sessions.entry(session.clone()).or_default() += 1;
        tables.turns.insert(turn.clone(), live.clone());
        drop(tables);
        Ok(Running { lives: self.clone(), turn, session, live })
    }

    pub(crate) fn get(&self, tenant: &str, turn_id: &str) -> Option<Arc<Live>> {
        self.lock().turns.get(&(tenant.to_owned(), turn_id.to_owned())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn in_progress(session_id: &str) -> Error {
    let message = format!("a turn of session {session_id:?} is in progress: wait for its end, or name a parent_turn_id to branch off");
    Error::failed_precondition(message).with_reason("turn_in_progress")
}

impl Running {
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut tables = self.lives.lock();
        tables.turns.remove(&self.turn);
        if let Some(count) = tables.sessions.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                tables.sessions.remove(&self.session);
            }
        }
        drop(tables);
        self.live.tail.send_modify(|tail| tail.closed = true);
    }
}

impl Live {
    pub(crate) fn push(&self, event: TurnEvent) {
        self.tail.send_modify(|tail| tail.push(Arc::new(event)));
    }

    pub(crate) fn tail(&self) -> watch::Receiver<Tail> {
        self.tail.subscribe()
    }
}

impl Tail {
    fn push(&mut self, event: Arc<TurnEvent>) {
        if self.events.len() == KEPT {
            self.events.pop_front();
            self.start += 1;
        }
        self.events.push_back(event);
    }

    /// All that comes after the cursor, which is moved behind it. Deltas of a step that still runs are given from the
    /// first that is kept.
    pub(crate) fn after(&self, cursor: &mut Cursor) -> Batch {
        let first = match cursor.place.filter(|place| *place >= self.start) {
            Some(place) => usize::try_from(place - self.start).unwrap_or(usize::MAX),
            None => match self.find(cursor.sequence) {
                Some(first) => first,
                None => return Batch::Behind,
            },
        };
        cursor.place = Some(self.start + first as u64);
        let events: Vec<Arc<TurnEvent>> = self.events.iter().skip(first).cloned().collect();
        let Some(last) = events.last() else { return if self.closed { Batch::Closed } else { Batch::Waiting } };
        cursor.sequence = last.sequence.max(cursor.sequence);
        cursor.place = Some(self.start + self.events.len() as u64);
        Batch::Events(events)
    }

    /// Where a watcher goes on that has the journal up to `sequence`; `None` if events in between have left the tail.
    fn find(&self, sequence: u64) -> Option<usize> {
        let journalled = self.events.iter().find(|event| !is_delta(event)).map(|event| event.sequence);
        // Without a journalled event in the tail, its deltas say how far the journal had come.
        let whole_from = journalled.or_else(|| self.events.front().map(|delta| delta.sequence + 1)).unwrap_or(1);
        if whole_from > sequence + 1 {
            return None;
        }
        Some(self.events.partition_point(|event| event.sequence < sequence || event.sequence == sequence && !is_delta(event)))
    }
}

fn is_delta(event: &TurnEvent) -> bool {
    matches!(event.event, Some(Event::Delta(_)))
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{AwaitingTools, StepDelta};

    use super::*;

    fn event(sequence: u64) -> Arc<TurnEvent> {
        Arc::new(TurnEvent { sequence, event: Some(Event::AwaitingTools(AwaitingTools::default())), ..TurnEvent::default() })
    }

    fn delta(sequence: u64) -> Arc<TurnEvent> {
        Arc::new(TurnEvent { sequence, event: Some(Event::Delta(StepDelta::default())), ..TurnEvent::default() })
    }

    fn seen(tail: &Tail, cursor: &mut Cursor) -> Option<Vec<u64>> {
        match tail.after(cursor) {
            Batch::Events(events) => Some(events.iter().map(|event| event.sequence).collect()),
            Batch::Waiting | Batch::Closed => Some(Vec::new()),
            Batch::Behind => None,
        }
    }

    #[test]
    fn each_event_is_seen_once_and_in_order() {
        let mut tail = Tail::default();
        let mut cursor = Cursor::default();
        let mut all = Vec::new();
        for next in [event(1), event(2), delta(2), delta(2), event(3), delta(3)] {
            tail.push(next);
            all.extend(seen(&tail, &mut cursor).unwrap());
            assert_eq!(seen(&tail, &mut cursor), Some(Vec::new()));
        }
        assert_eq!(all, [1, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn who_joins_gets_what_comes_after_its_number() {
        let mut tail = Tail::default();
        [event(4), delta(4), event(5), delta(5)].map(|event| tail.push(event));
        let from = |sequence| seen(&tail, &mut Cursor { sequence, place: None });
        assert_eq!(from(2), None, "event 3 is in the journal only");
        assert_eq!(from(3), Some(vec![4, 4, 5, 5]));
        assert_eq!(from(4), Some(vec![4, 5, 5]));
        assert_eq!(from(5), Some(vec![5]));
    }

    #[test]
    fn who_is_too_slow_is_sent_to_the_journal_and_finds_back() {
        let mut tail = Tail::default();
        tail.push(event(1));
        let mut slow = Cursor::default();
        assert_eq!(seen(&tail, &mut slow), Some(vec![1]));
        (2..KEPT as u64 + 10).for_each(|sequence| tail.push(event(sequence)));
        assert_eq!(seen(&tail, &mut slow), None);
        let mut caught_up = Cursor { sequence: KEPT as u64 + 7, place: None };
        assert_eq!(seen(&tail, &mut caught_up), Some(vec![KEPT as u64 + 8, KEPT as u64 + 9]));
    }
}
