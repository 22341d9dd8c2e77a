//! Who may run now: a fixed number at once, and a bounded queue behind them.
//!
//! Of those that wait, the tenant comes first that had the engine least, batch work comes last, and else who came first; whoever
//! has waited too long goes before all. Where the queue is full, whoever has the most in it makes room for one who has less.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Context, Error, Priority, Result};
use tokio::sync::oneshot;

/// What a caller is told to wait where nothing has run yet.
const FIRST_HINT: Duration = Duration::from_secs(1);
const LONGEST_HINT: Duration = Duration::from_secs(60);
/// Whoever has waited for so long goes first, by arrival.
const PATIENCE: Duration = Duration::from_secs(30);

/// The door of an engine. Cheap to clone: the clones are one door.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How many may be inside.
    places: usize,
    concurrent: usize,
    queue: usize,
    /// All that may wait are let in, and the engine itself decides who runs.
    shared: bool,
    state: Mutex<State>,
    /// Nanoseconds that a slot was held of late, a moving average; 0 before the first.
    held: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    /// In order of arrival.
    waiting: Vec<Waiting>,
    /// Those that have something here, and those that had while others waited.
    tenants: HashMap<String, Tenant>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    tenant: String,
    priority: Priority,
    since: Instant,
    /// With a slot; without one it had to make room.
    call: oneshot::Sender<Option<Permit>>,
}

#[derive(Debug)]
struct Tenant {
    /// Inside and waiting.
    present: usize,
    /// Nanoseconds that it held slots; whoever comes has no less than the least of those that are here.
    had: u64,
}

/// A slot. Dropping it lets the next in.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Inner>,
    tenant: String,
    since: Instant,
    /// Whoever it was for has it; else how long it was held says nothing.
    taken: bool,
}

/// A place in the queue; leaves it when dropped, admitted or not.
struct Place<'a> {
    door: &'a Inner,
    number: u64,
}

/// What becomes of one who asks.
enum Asked {
    In,
    Waits(u64, oneshot::Receiver<Option<Permit>>),
    Full,
}

impl Admission {
    /// `concurrent` at once (at least 1), `queue` more may wait.
    pub fn new(concurrent: usize, queue: usize) -> Self {
        let concurrent = concurrent.max(1);
        Self::of(concurrent, concurrent, queue, false)
    }

    /// For an engine that queues by itself: lets in `concurrent` and `queue` more, and nobody waits at the door. Beyond them, an
    /// eighth of the queue is kept for tenants that have nothing inside.
    pub fn shared(concurrent: usize, queue: usize) -> Self {
        let concurrent = concurrent.max(1);
        Self::of(concurrent.saturating_add(queue), concurrent, queue, true)
    }

    fn of(places: usize, concurrent: usize, queue: usize, shared: bool) -> Self {
        let (state, held) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { places, concurrent, queue, shared, state, held }))
    }

    /// Waits for a slot. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// `ResourceExhausted`, reason `queue_full`, with the time after which to come back ·
    /// `DeadlineExceeded` where the context's deadline passes first
    pub async fn enter(&self, cx: &Context) -> Result<Permit> {
        if cx.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(too_late());
        }
        let (number, called) = match self.0.ask(cx) {
            Asked::In => return Ok(self.0.permit(cx.tenant().to_owned()).taken()),
            Asked::Waits(number, called) => (number, called),
            Asked::Full => return Err(self.full()),
        };
        let _place = Place { door: &self.0, number };
        let called = cx.within(async { called.await.map_err(|closed| gone().with_source(closed)) }).await;
        let called = called.map_err(|error| if error.code() == Code::DeadlineExceeded { too_late() } else { error })?;
        called.map(Permit::taken).ok_or_else(|| self.full())
    }

    /// How many wait.
    pub fn queued(&self) -> usize {
        let state = self.0.state();
        if self.0.shared { state.inside.saturating_sub(self.0.concurrent) } else { state.waiting.len() }
    }

    /// How many hold a slot.
    pub fn running(&self) -> usize {
        self.0.state().inside.min(self.0.concurrent)
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

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(self: &Arc<Self>, tenant: String) -> Permit {
        Permit { door: self.clone(), tenant, since: Instant::now(), taken: false }
    }

    fn ask(&self, cx: &Context) -> Asked {
        let tenant = cx.tenant();
        let mut state = self.state();
        let is_new = state.tenants.get(tenant).is_none_or(|one| one.present == 0);
        let kept_for_new = if self.shared && is_new { self.queue.div_ceil(8) } else { 0 };
        // Never overtakes: a slot that becomes free goes to who waits before it counts as free.
        if state.inside < self.places.saturating_add(kept_for_new) {
            state.inside += 1;
            state.comes(tenant);
            return Asked::In;
        }
        if self.shared {
            return Asked::Full;
        }
        let mut pushed_out = None;
        if state.waiting.len() >= self.queue {
            pushed_out = state.make_room(tenant, cx.priority());
            if pushed_out.is_none() {
                return Asked::Full;
            }
        }
        let (number, called) = state.waits(tenant, cx.priority());
        drop(state);
        if let Some(Waiting { call, .. }) = pushed_out {
            // It may have left by itself.
            let _ = call.send(None);
        }
        Asked::Waits(number, called)
    }
}

impl State {
    fn comes(&mut self, tenant: &str) {
        let least = self.tenants.values().filter(|one| one.present > 0).map(|one| one.had).min().unwrap_or_default();
        let one = self.tenants.entry(tenant.to_owned()).or_insert(Tenant { present: 0, had: least });
        if one.present == 0 {
            one.had = one.had.max(least);
        }
        one.present += 1;
    }

    fn waits(&mut self, tenant: &str, priority: Priority) -> (u64, oneshot::Receiver<Option<Permit>>) {
        let (call, called) = oneshot::channel();
        let number = self.next_number;
        self.next_number += 1;
        self.comes(tenant);
        self.waiting.push(Waiting { number, tenant: tenant.to_owned(), priority, since: Instant::now(), call });
        (number, called)
    }

    /// After it held a slot for so many nanoseconds, or none.
    fn goes(&mut self, tenant: &str, held: u64) {
        if let Some(one) = self.tenants.get_mut(tenant) {
            (one.present, one.had) = (one.present.saturating_sub(1), one.had.saturating_add(held));
        }
        // Forgotten sooner, those that come and go would always go before one that stays.
        if self.waiting.is_empty() {
            self.tenants.retain(|_, one| one.present > 0);
        }
    }

    /// Takes out whose turn it is.
    fn next(&mut self, now: Instant) -> Option<Waiting> {
        let turn = |waiting: &Waiting| {
            let can_wait = now.saturating_duration_since(waiting.since) < PATIENCE;
            let had = self.tenants.get(&waiting.tenant).map_or(0, |one| one.had);
            (can_wait.then_some((waiting.priority == Priority::Batch, had)), waiting.number)
        };
        let index = (0..self.waiting.len()).min_by_key(|index| turn(&self.waiting[*index]))?;
        Some(self.waiting.remove(index))
    }

    /// Takes out who makes room for one more: the newest batch work for what is urgent, or the newest of the tenant that has most
    /// here, for one that has less even with one more; what is urgent makes no room for batch work.
    fn make_room(&mut self, tenant: &str, priority: Priority) -> Option<Waiting> {
        let index = {
            let mut counts = HashMap::<&str, usize>::new();
            for waiting in &self.waiting {
                *counts.entry(waiting.tenant.as_str()).or_default() += 1;
            }
            let (own, most) = (counts.get(tenant).copied().unwrap_or_default(), counts.values().copied().max().unwrap_or_default());
            let is_batch = |waiting: &Waiting| priority == Priority::Interactive && waiting.priority == Priority::Batch;
            let has_most = |waiting: &Waiting| most > own + 1 && counts.get(waiting.tenant.as_str()) == Some(&most);
            let may_go = |waiting: &Waiting| priority == Priority::Interactive || waiting.priority == Priority::Batch;
            let is_greedy = |waiting: &Waiting| has_most(waiting) && may_go(waiting);
            let newest_batch = self.waiting.iter().rposition(is_batch);
            newest_batch.or_else(|| self.waiting.iter().rposition(is_greedy))?
        };
        let waiting = self.waiting.remove(index);
        self.goes(&waiting.tenant, 0);
        Some(waiting)
    }
}

impl Permit {
    fn taken(mut self) -> Self {
        self.taken = true;
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let held = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        if self.taken {
            let average = |old: u64| Some(if old == 0 { held } else { old - old / 4 + held / 4 });
            let _always_some = self.door.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, average);
        }
        let next = {
            let mut state = self.door.state();
            state.goes(&self.tenant, held);
            let next = state.next(Instant::now());
            if next.is_none() {
                state.inside -= 1;
            }
            next
        };
        if let Some(Waiting { tenant, call, .. }) = next {
            // Who has left meanwhile gives it back at once.
            drop(call.send(Some(self.door.permit(tenant))));
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.door.state();
        if let Some(index) = state.waiting.iter().position(|waiting| waiting.number == self.number) {
            let waiting = state.waiting.remove(index);
            state.goes(&waiting.tenant, 0);
        }
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
    async fn a_slot_that_nobody_came_for_says_nothing_of_how_long_they_are_held() {
        let (cx, door) = (Context::test("t"), Admission::new(1, 1));
        let first = door.enter(&cx).await.unwrap();
        let mut gone = Box::pin(door.enter(&cx));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(first);
        let held = door.0.held.load(Ordering::Relaxed);
        drop(gone);
        assert_eq!((door.0.held.load(Ordering::Relaxed), door.running()), (held, 0));
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

    #[tokio::test]
    async fn a_tenant_with_much_does_not_hold_up_one_with_little() {
        let (much, little, door) = (Context::test("much"), Context::test("little"), Admission::new(1, 8));
        let running = door.enter(&much).await.unwrap();
        let mut waiting: FuturesUnordered<_> =
            [&much, &much, &much, &little].into_iter().map(|cx| door.enter(cx).map(move |permit| (cx.tenant(), permit.unwrap()))).collect();
        assert!(waiting.next().now_or_never().is_none());
        drop(running);
        let (tenant, permit) = waiting.next().await.unwrap();
        assert_eq!(tenant, "little", "it waited for all of another's");
        drop(permit);
        for _ in 0..3 {
            assert_eq!(waiting.next().await.unwrap().0, "much");
        }
    }

    #[test]
    fn who_always_waits_has_its_share_beside_those_that_come_and_go() {
        let (mut state, now) = (State::default(), Instant::now());
        state.comes("stays");
        for tenant in ["stays", "stays", "stays", "comes", "goes"] {
            drop(state.waits(tenant, Priority::Interactive));
        }
        let (mut running, mut turns) = ("stays".to_owned(), HashMap::<String, u32>::new());
        for _ in 0..300 {
            state.goes(&running, 10);
            let next = state.next(now).unwrap().tenant;
            // It asks again once its answer is there.
            drop(state.waits(&running, Priority::Interactive));
            *turns.entry(next.clone()).or_default() += 1;
            running = next;
        }
        assert!(["stays", "comes", "goes"].iter().all(|tenant| (95..=105).contains(&turns[*tenant])), "{turns:?}");
    }

    #[test]
    fn who_has_waited_too_long_goes_first_whatever_it_had() {
        let next = |later: Duration| {
            let mut state = State::default();
            state.comes("much");
            drop(state.waits("much", Priority::Batch));
            drop(state.waits("little", Priority::Interactive));
            state.goes("much", 10);
            state.next(Instant::now() + later).unwrap().tenant
        };
        assert_eq!((next(Duration::ZERO).as_str(), next(PATIENCE).as_str()), ("little", "much"));
    }

    #[tokio::test]
    async fn batch_work_waits_for_what_is_urgent() {
        let (urgent, door) = (Context::test("t"), Admission::new(1, 8));
        let batch = urgent.clone().with_priority(Priority::Batch);
        let running = door.enter(&urgent).await.unwrap();
        let mut waiting: FuturesUnordered<_> =
            [&batch, &urgent].into_iter().map(|cx| door.enter(cx).map(move |permit| (cx.priority(), permit.unwrap()))).collect();
        assert!(waiting.next().now_or_never().is_none());
        drop(running);
        assert_eq!(waiting.next().await.unwrap().0, Priority::Interactive);
        assert_eq!(waiting.next().await.unwrap().0, Priority::Batch);
    }

    #[tokio::test]
    async fn who_fills_the_queue_makes_room_for_another() {
        let (much, little, door) = (Context::test("much"), Context::test("little"), Admission::new(1, 3));
        let running = door.enter(&much).await.unwrap();
        let mut of_much: FuturesUnordered<_> = (0..3).map(|number| door.enter(&much).map(move |permit| (number, permit))).collect();
        assert!(of_much.next().now_or_never().is_none());
        let batch = little.clone().with_priority(Priority::Batch);
        assert_eq!(door.enter(&batch).await.unwrap_err().reason(), Some("queue_full"), "batch work pushed out what is urgent");
        let mut of_little = std::pin::pin!(door.enter(&little));
        assert!(of_little.as_mut().now_or_never().is_none());
        let (number, refused) = of_much.next().await.unwrap();
        assert_eq!((number, refused.unwrap_err().reason()), (2, Some("queue_full")), "the newest of who has most");
        // Two to one: one more would only turn it round.
        assert_eq!(door.enter(&little).await.unwrap_err().reason(), Some("queue_full"));
        assert_eq!(door.queued(), 3);
        drop(running);
        drop(of_little.await.unwrap());
        drop(of_much);
        assert_eq!((door.running(), door.queued()), (0, 0));
        assert!(door.0.state().tenants.is_empty());
    }

    #[tokio::test]
    async fn a_shared_door_keeps_places_for_who_has_none() {
        let (much, little, door) = (Context::test("much"), Context::test("little"), Admission::shared(1, 7));
        let mut inside = Vec::new();
        for _ in 0..8 {
            inside.push(door.enter(&much).await.unwrap());
        }
        assert_eq!(door.enter(&much).await.unwrap_err().reason(), Some("queue_full"));
        inside.push(door.enter(&little).await.unwrap());
        assert_eq!(door.enter(&little).await.unwrap_err().reason(), Some("queue_full"));
        drop(inside);
        assert_eq!((door.running(), door.queued()), (0, 0));
    }
}
