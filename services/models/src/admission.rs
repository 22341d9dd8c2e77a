//! Who may run now: a fixed number at once, a bounded queue behind them, first come, first served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Context, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a caller is told to wait where nothing has run yet.
const FIRST_HINT: Duration = Duration::from_secs(1);
const LONGEST_HINT: Duration = Duration::from_secs(60);

/// The door of an engine. Cheap to clone: the clones are one door.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Arc<Semaphore>,
    /// Of `slots`, taken and free.
    places: usize,
    concurrent: usize,
    queue: usize,
    /// All that may wait are let in, and the engine itself decides who runs.
    shared: bool,
    waiting: AtomicUsize,
    /// Nanoseconds that a slot was held of late, a moving average; 0 before the first.
    held: AtomicU64,
}

/// A slot. Dropping it lets the next in.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Inner>,
    since: Instant,
    _slot: OwnedSemaphorePermit,
}

/// A place in the queue; leaves it when dropped, admitted or not.
struct Place<'a>(&'a AtomicUsize);

impl Admission {
    /// `concurrent` at once (at least 1), `queue` more may wait.
    pub fn new(concurrent: usize, queue: usize) -> Self {
        let concurrent = concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Self::of(concurrent, concurrent, queue, false)
    }

    /// For an engine that queues by itself: lets in `concurrent` and `queue` more, and nobody waits at the door.
    pub fn shared(concurrent: usize, queue: usize) -> Self {
        let concurrent = concurrent.max(1);
        Self::of(concurrent.saturating_add(queue).min(Semaphore::MAX_PERMITS), concurrent, queue, true)
    }

    fn of(slots: usize, concurrent: usize, queue: usize, shared: bool) -> Self {
        let (waiting, held) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { slots: Arc::new(Semaphore::new(slots)), places: slots, concurrent, queue, shared, waiting, held }))
    }

    /// Waits for a slot, in order of arrival. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// `ResourceExhausted`, reason `queue_full`, with the time after which to come back ·
    /// `DeadlineExceeded` where the context's deadline passes first
    pub async fn enter(&self, cx: &Context) -> Result<Permit> {
        if cx.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(too_late());
        }
        // Never overtakes: a slot that becomes free goes to the queue before it counts as available.
        if let Ok(slot) = self.0.slots.clone().try_acquire_owned() {
            return Ok(self.permit(slot));
        }
        let place = self.place().ok_or_else(|| self.full())?;
        let slot = cx.within(async { self.0.slots.clone().acquire_owned().await.map_err(|closed| gone().with_source(closed)) });
        let slot = slot.await.map_err(|error| if error.code() == Code::DeadlineExceeded { too_late() } else { error })?;
        drop(place);
        Ok(self.permit(slot))
    }

    /// How many wait.
    pub fn queued(&self) -> usize {
        if self.0.shared { self.inside().saturating_sub(self.0.concurrent) } else { self.0.waiting.load(Ordering::Relaxed) }
    }

    /// How many hold a slot.
    pub fn running(&self) -> usize {
        self.inside().min(self.0.concurrent)
    }

    fn inside(&self) -> usize {
        self.0.places - self.0.slots.available_permits()
    }

    fn permit(&self, slot: OwnedSemaphorePermit) -> Permit {
        Permit { door: self.0.clone(), since: Instant::now(), _slot: slot }
    }

    fn place(&self) -> Option<Place<'_>> {
        let more = |waiting: usize| (!self.0.shared && waiting < self.0.queue).then_some(waiting + 1);
        let waiting = &self.0.waiting;
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Place(waiting))
    }

    fn full(&self) -> Error {
        let (running, queued) = (self.0.concurrent, self.0.queue);
        let message = format!("the model is busy: {running} running and {queued} waiting, which is all that may");
        Error::new(Code::ResourceExhausted, message).with_reason("queue_full").with_retry_after(self.retry_after())
    }

    /// When the queue as it is will have moved on, judged by how long slots were held of late.
    fn retry_after(&self) -> Duration {
        let held = Duration::from_nanos(self.0.held.load(Ordering::Relaxed));
        if held.is_zero() {
            return FIRST_HINT;
        }
        let rounds = (self.queued() + 1).div_ceil(self.0.concurrent);
        let wait = held.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        wait.clamp(Duration::from_millis(100), LONGEST_HINT)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        let average = |old: u64| Some(if old == 0 { now } else { old - old / 4 + now / 4 });
        let _always_some = self.door.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, average);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn too_late() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed while the request waited for the model")
}

fn gone() -> Error {
    Error::unavailable("the model is shutting down")
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};

    use super::*;

    #[tokio::test]
    async fn the_queue_is_bounded_and_says_when_to_come_back() {
        let (cx, door) = (Context::test("t"), Admission::new(1, 1));
        let first = door.enter(&cx).await.unwrap();
        let mut second = std::pin::pin!(door.enter(&cx));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!((door.running(), door.queued()), (1, 1));

        let refused = door.enter(&cx).await.unwrap_err();
        assert_eq!((refused.code(), refused.reason()), (Code::ResourceExhausted, Some("queue_full")));
        assert_eq!(refused.retry_after(), Some(FIRST_HINT));

        drop(first);
        let second = second.await.unwrap();
        assert_eq!((door.running(), door.queued()), (1, 0));
        drop(second);
        assert_eq!(door.running(), 0);
    }

    #[tokio::test]
    async fn the_hint_follows_the_times_that_slots_were_held() {
        let (cx, door) = (Context::test("t"), Admission::new(2, 0));
        door.0.held.store(Duration::from_secs(8).as_nanos() as u64, Ordering::Relaxed);
        let _running = (door.enter(&cx).await.unwrap(), door.enter(&cx).await.unwrap());
        assert_eq!(door.enter(&cx).await.unwrap_err().retry_after(), Some(Duration::from_secs(8)));
    }

    #[tokio::test]
    async fn an_engine_that_queues_by_itself_is_given_all_that_may_wait() {
        let (cx, door) = (Context::test("t"), Admission::shared(2, 1));
        let inside = [door.enter(&cx).await.unwrap(), door.enter(&cx).await.unwrap(), door.enter(&cx).await.unwrap()];
        assert_eq!((door.running(), door.queued()), (2, 1));
        let refused = door.enter(&cx).await.unwrap_err();
        assert_eq!((refused.reason(), refused.message().contains("2 running and 1 waiting")), (Some("queue_full"), true));
        drop(inside);
        assert_eq!((door.running(), door.queued()), (0, 0));
    }

    #[tokio::test]
    async fn first_come_first_served() {
        let (cx, door) = (Context::test("t"), Admission::new(1, 8));
        let mut running = Some(door.enter(&cx).await.unwrap());
        let mut waiting: FuturesUnordered<_> = (0..8).map(|number| door.enter(&cx).map(move |permit| (number, permit.unwrap()))).collect();
        assert!(waiting.next().now_or_never().is_none());
        for expected in 0..8 {
            drop(running.take());
            let (number, permit) = waiting.next().await.unwrap();
            assert_eq!(number, expected);
            running = Some(permit);
        }
    }

    #[tokio::test]
    async fn dropping_a_waiting_request_leaves_the_queue() {
        let (cx, door) = (Context::test("t"), Admission::new(1, 1));
        let running = door.enter(&cx).await.unwrap();
        {
            let mut waiting = std::pin::pin!(door.enter(&cx));
            assert!(waiting.as_mut().now_or_never().is_none());
            assert_eq!(door.queued(), 1);
        }
        assert_eq!(door.queued(), 0);
        let mut next = std::pin::pin!(door.enter(&cx));
        assert!(next.as_mut().now_or_never().is_none(), "the place was not given back");
        drop(running);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_past_the_deadline() {
        let (cx, door) = (Context::test("t"), Admission::new(1, 1));
        let _running = door.enter(&cx).await.unwrap();
        let late = door.enter(&cx.clone().with_timeout(Duration::from_millis(5))).await.unwrap_err();
        assert_eq!((late.code(), door.queued()), (Code::DeadlineExceeded, 0));
        let late = door.enter(&cx.with_timeout(Duration::ZERO)).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
    }
}
