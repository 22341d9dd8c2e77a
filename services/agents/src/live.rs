//! The turns that run in this process: how to cancel one, and the newest of its events for whoever watches.
//!
//! ```text
//! run ── push ──> Tail: the last events and deltas, in order ──> any number of watchers, each with its own Cursor
//! ```
//!
//! A watcher costs nothing while it sleeps, and one that is slow finds that its place has left the tail: it reads what
//! it missed from the journal. So a turn never waits for a watcher and never buffers for one.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Turn, TurnEvent, turn_event::Event};
use llama_stack_store::Held;
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
    /// How many turns run in a session; none has no row.
    sessions: HashMap<Key, usize>,
}

/// A tenant and an id.
type Key = (String, String);

/// One turn that runs.
pub(crate) struct Live {
    session: Key,
    pub(crate) cancel: CancellationToken,
    /// The turn is no longer this process's: its run stops without another word.
    pub(crate) lost: CancellationToken,
    /// Under which it is held here; 0 before that is so.
    epoch: AtomicI64,
    tail: watch::Sender<Tail>,
}

/// Holds a turn's place among those that run; dropping it tells the watchers that nothing more comes.
pub(crate) struct Running {
    lives: Lives,
    turn: Key,
    live: Arc<Live>,
    /// The caller's place among those that may have turns run.
    admitted: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The newest events of a turn.
#[derive(Default)]
pub(crate) struct Tail {
    events: VecDeque<Arc<TurnEvent>>,
    /// The journal's sequence when the turn began to run here.
    base: u64,
    /// The place of the first of `events` among all that were ever pushed.
    start: u64,
    /// The turn does not run here any more.
    closed: bool,
    /// With `closed`: it goes on elsewhere, or here after a while.
    moved: bool,
    /// Its rest is being written: the journal may tell of it although the turn still has its place here.
    resting: bool,
}

/// How far a watcher has come.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// The last journalled event that it has.
    pub(crate) sequence: u64,
    /// Its place in the tail, once it has one.
    place: Option<u64>,
}

impl Cursor {
    pub(crate) fn at(sequence: u64) -> Self {
        Self { sequence, place: None }
    }
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
    /// Enters a turn of a session, whose journal has come to `sequence`. `alone`: only if no other turn runs in the session.
    ///
    /// # Errors
    /// `FailedPrecondition` (`turn_in_progress`): another one runs in the session, or this very one.
    pub(crate) fn enter(&self, tenant: &str, session_id: &str, turn_id: &str, sequence: u64, alone: bool) -> Result<Running> {
        let turn = (tenant.to_owned(), turn_id.to_owned());
        let session = (tenant.to_owned(), session_id.to_owned());
        let mut tables = self.lock();
        if tables.turns.contains_key(&turn) || alone && tables.sessions.contains_key(&session) {
            return Err(in_progress(session_id));
        }
        let tail = watch::Sender::new(Tail { base: sequence, ..Tail::default() });
        let (cancel, lost) = (CancellationToken::new(), CancellationToken::new());
        let live = Arc::new(Live { session: session.clone(), cancel, lost, epoch: AtomicI64::new(0), tail });
        *tables.sessions.entry(session.clone()).or_default() += 1;
        tables.turns.insert(turn.clone(), live.clone());
        drop(tables);
        Ok(Running { lives: self.clone(), turn, live, admitted: Mutex::default() })
    }

    pub(crate) fn get(&self, tenant: &str, turn_id: &str) -> Option<Arc<Live>> {
        self.lock().turns.get(&(tenant.to_owned(), turn_id.to_owned())).cloned()
    }

    /// Cancels every turn that runs in a session.
    pub(crate) fn cancel_session(&self, tenant: &str, session_id: &str) {
        let tables = self.lock();
        let of_session = |live: &&Arc<Live>| live.session.0 == tenant && live.session.1 == session_id;
        tables.turns.values().filter(of_session).for_each(|live| live.cancel.cancel());
    }

    /// The turns that are held here, each under its epoch.
    pub(crate) fn held(&self) -> Vec<(Held, Arc<Live>)> {
        let tables = self.lock();
        let held = tables.turns.iter().map(|((tenant, turn_id), live)| {
            let epoch = live.epoch.load(Ordering::Relaxed);
            (Held { tenant: tenant.clone(), turn_id: turn_id.clone(), epoch }, live.clone())
        });
        held.filter(|(held, _)| held.epoch != 0).collect()
    }

    /// Whether the turn runs here, or is about to, under whichever epoch.
    pub(crate) fn runs(&self, held: &Held) -> bool {
        self.lock().turns.contains_key(&(held.tenant.clone(), held.turn_id.clone()))
    }

    /// Waits for the turn's place to be given up, where its rest is just being written: whoever read of the rest may go on from it.
    pub(crate) async fn settle(&self, tenant: &str, turn_id: &str) {
        if let Some(live) = self.get(tenant, turn_id) {
            live.settled().await;
        }
    }

    /// The same for all turns of a session: of a rest somebody may have read in another process.
    pub(crate) async fn settle_session(&self, tenant: &str, session_id: &str) {
        for live in self.of_session(tenant, session_id) {
            live.settled().await;
        }
    }

    fn of_session(&self, tenant: &str, session_id: &str) -> Vec<Arc<Live>> {
        let session = (tenant.to_owned(), session_id.to_owned());
        let tables = self.lock();
        if !tables.sessions.contains_key(&session) {
            return Vec::new();
        }
        tables.turns.values().filter(|live| live.session == session).cloned().collect()
    }

    pub(crate) fn lose_all(&self) {
        self.lock().turns.values().for_each(|live| live.lose());
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
    /// Until the turn gives up its place.
    pub(crate) fn keep(&self, admitted: Option<Box<dyn Any + Send>>) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = admitted;
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Running {
    /// Gives up the turn's place, so that whoever is told of its rest next finds the session free.
    pub(crate) fn release(&self) {
        self.keep(None);
        let mut tables = self.lives.lock();
        if !tables.turns.get(&self.turn).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            return;
        }
        tables.turns.remove(&self.turn);
        if let Some(count) = tables.sessions.get_mut(&self.live.session) {
            *count -= 1;
            if *count == 0 {
                tables.sessions.remove(&self.live.session);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.release();
        let moved = self.live.lost.is_cancelled();
        self.live.tail.send_modify(|tail| (tail.closed, tail.moved) = (true, moved));
    }
}

impl Live {
    /// From now on the turn is held here under this epoch.
    pub(crate) fn hold(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn lose(&self) {
        self.lost.cancel();
    }

    pub(crate) fn push(&self, event: TurnEvent) {
        self.tail.send_modify(|tail| tail.push(Arc::new(event)));
    }

    pub(crate) fn tail(&self) -> watch::Receiver<Tail> {
        self.tail.subscribe()
    }

    /// From here on the journal may tell that the turn rests; with `false`, that has been written, or cannot be.
    pub(crate) fn rest(&self, begins: bool) {
        self.tail.send_modify(|tail| tail.resting = begins);
    }

    async fn settled(&self) {
        let mut tail = self.tail.subscribe();
        // An error means that the sender is gone, which this value has.
        let _ = tail.wait_for(|tail| !tail.resting || tail.closed).await;
    }

    /// Returns once the turn does not run here any more, with the turn if it has ended.
    pub(crate) async fn closed(&self) -> Option<Turn> {
        let mut tail = self.tail.subscribe();
        let tail = tail.wait_for(|tail| tail.closed).await.ok()?;
        match &tail.events.back()?.event {
            Some(Event::Ended(turn)) => Some((**turn).clone()),
            _ => None,
        }
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
            // It was faster in the journal, which has an event a moment before the tail does.
            None if self.newest() < cursor.sequence => return if self.closed { Batch::Closed } else { Batch::Waiting },
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

    /// The turn does not run here any more, but it goes on: its journal tells how.
    pub(crate) fn moved(&self) -> bool {
        self.moved
    }

    /// The number of the last event that came here.
    fn newest(&self) -> u64 {
        self.events.back().map_or(self.base, |last| last.sequence)
    }

    /// Moves a cursor to the first event that is kept, for one who cannot have those before it any more.
    pub(crate) fn skip(&self, cursor: &mut Cursor) {
        cursor.place = Some(self.start);
    }

    /// Where a watcher goes on that has the journal up to `sequence`; `None` if events in between have left the tail.
    fn find(&self, sequence: u64) -> Option<usize> {
        let whole_from = match self.events.front() {
            // A delta has the number of the event before it, which has left the tail.
            Some(first) => first.sequence + u64::from(is_delta(first)),
            None => self.base + 1,
        };
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

    #[tokio::test]
    async fn who_has_read_of_a_rest_waits_until_the_session_is_free() {
        let lives = Lives::default();
        let running = lives.enter("acme", "session", "turn", 1, true).unwrap();
        lives.settle("acme", "turn").await;
        running.live().rest(true);
        let mut both = std::pin::pin!(async { tokio::join!(lives.settle("acme", "turn"), lives.settle_session("acme", "session")) });
        assert!(futures::poll!(both.as_mut()).is_pending());
        running.release();
        running.live().rest(false);
        both.await;
        assert!(lives.enter("acme", "session", "next", 0, true).is_ok());
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
        [event(4), delta(4), event(5), delta(5)].into_iter().for_each(|event| tail.push(event));
        let from = |sequence| seen(&tail, &mut Cursor { sequence, place: None });
        assert_eq!(from(2), None, "event 3 is in the journal only");
        assert_eq!(from(3), Some(vec![4, 4, 5, 5]));
        assert_eq!(from(4), Some(vec![4, 5, 5]));
        assert_eq!(from(5), Some(vec![5]));
    }

    #[test]
    fn a_turn_that_goes_on_here_sends_newcomers_to_the_journal() {
        let mut tail = Tail { base: 3, ..Tail::default() };
        assert_eq!(seen(&tail, &mut Cursor::default()), None);
        assert_eq!(seen(&tail, &mut Cursor { sequence: 3, place: None }), Some(Vec::new()));
        tail.push(event(4));
        assert_eq!(seen(&tail, &mut Cursor { sequence: 1, place: None }), None);
        assert_eq!(seen(&tail, &mut Cursor { sequence: 3, place: None }), Some(vec![4]));
    }

    #[test]
    fn who_was_faster_in_the_journal_sees_nothing_twice() {
        let mut tail = Tail { base: 3, ..Tail::default() };
        let mut ahead = Cursor::at(5);
        let mut all = seen(&tail, &mut ahead).unwrap();
        for next in [event(4), event(5), delta(5), event(6)] {
            tail.push(next);
            all.extend(seen(&tail, &mut ahead).unwrap());
        }
        assert_eq!(all, [5, 6], "the delta that follows event 5, and event 6");
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
