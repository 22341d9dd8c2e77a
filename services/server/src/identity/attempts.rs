//! Wrong credentials from one address: so many at once, and then one after the other. Who has none left waits, whatever is shown.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock, Reference},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use llama_stack_core::{Code, Error, Result, manifest};
use tokio::sync::Notify;

use crate::connections::network;

/// What the error, and the count of refusals, call it.
pub(super) const REASON: &str = "too_many_wrong_credentials";
/// Addresses that are told apart. Beyond them a new one is not counted: whoever has as many addresses is not held up by any of them.
const MANY: usize = 100_000;
/// How often those are forgotten that have all their attempts again; or each second, where there are many.
const SWEEP: Duration = Duration::from_secs(60);

/// Counts what was wrong, and nothing else: who is right takes no attempt.
///
/// At once no more are looked at from an address than it has attempts left, or those who came together would have more. The others wait
/// for those to be told, and are refused only where no attempt is left then: a busy caller whose credentials are right waits for a moment.
pub(super) struct Attempts<C: Clock = DefaultClock> {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, C, StateInformationMiddleware>,
    quota: Quota,
    addresses: Mutex<Addresses<C::Instant>>,
}

struct Addresses<T> {
    seen: HashMap<IpAddr, Seen<T>>,
    swept: T,
}

/// An address from which something is looked at, or was wrong lately.
struct Seen<T> {
    under_way: u32,
    /// Attempts that it had left then, and when that was.
    left: u32,
    since: T,
    /// Wakes one of those who wait for a place.
    back: Arc<Notify>,
}

impl<T: Reference> Seen<T> {
    fn left(&self, quota: Quota, now: T) -> u32 {
        let (passed, burst): (Duration, _) = (now.duration_since(self.since).into(), quota.burst_size().get());
        let back = passed.as_nanos() / quota.replenish_interval().as_nanos().max(1);
        u32::try_from(back).map_or(burst, |back| self.left.saturating_add(back).min(burst))
    }

    /// Whether forgetting it changes nothing.
    fn is_idle(&self, quota: Quota, now: T) -> bool {
        let waiting = Arc::strong_count(&self.back) > 1;
        self.under_way == 0 && !waiting && self.left(quota, now) == quota.burst_size().get()
    }
}

/// One credential that is looked at. Dropping it gives its place back, and takes no attempt.
pub(super) struct Place<'a, C: Clock = DefaultClock> {
    attempts: &'a Attempts<C>,
    address: IpAddr,
}

impl<C: Clock> Place<'_, C> {
    /// What was shown was wrong.
    pub(super) fn failed(self) {
        self.attempts.failed(self.address);
    }
}

impl<C: Clock> Drop for Place<'_, C> {
    fn drop(&mut self) {
        self.attempts.leave(self.address);
    }
}

impl Attempts {
    pub(super) fn new(config: manifest::Attempts) -> Self {
        Self::by(config, DefaultClock::default())
    }
}

impl<C: Clock> Attempts<C> {
    fn by(config: manifest::Attempts, clock: C) -> Self {
        let count = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(count(config.per_minute)).allow_burst(count(config.burst));
        let addresses = Mutex::new(Addresses { seen: HashMap::new(), swept: clock.now() });
        Self { limiter: RateLimiter::dashmap_with_clock(quota, clock).with_middleware(), quota, addresses }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses<C::Instant>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place to look at what is shown from there, as soon as there is one. Takes no attempt.
    ///
    /// # Errors
    /// `ResourceExhausted` with the time to come back.
    pub(super) async fn begin(&self, address: IpAddr) -> Result<Place<'_, C>> {
        let address = network(address);
        while let Some(back) = self.enter(address)? {
            back.notified().await;
        }
        Ok(Place { attempts: self, address })
    }

    /// What is to be waited for, where all places are taken.
    fn enter(&self, address: IpAddr) -> Result<Option<Arc<Notify>>> {
        let (now, mut addresses) = (self.limiter.clock().now(), self.addresses());
        self.sweep(&mut addresses, now, SWEEP);
        let fresh = || Seen { under_way: 0, left: self.quota.burst_size().get(), since: now, back: Arc::default() };
        let seen = addresses.seen.entry(address).or_insert_with(fresh);
        let left = seen.left(self.quota, now);
        if left > 0 {
            if seen.under_way >= left {
                return Ok(Some(seen.back.clone()));
            }
            seen.under_way += 1;
            if seen.under_way < left {
                seen.back.notify_one();
            }
            return Ok(None);
        }
        // Who waits beside it is refused as well.
        seen.back.notify_one();
        let passed: Duration = now.duration_since(seen.since).into();
        let wait = self.quota.replenish_interval().saturating_sub(passed).max(Duration::from_secs(1));
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many wrong credentials came from this address, so none is looked at now: try again in {seconds} s");
        Err(Error::new(Code::ResourceExhausted, message).with_reason(REASON).with_retry_after(wait))
    }

    fn failed(&self, address: IpAddr) {
        let (now, mut addresses) = (self.limiter.clock().now(), self.addresses());
        let is_counted = addresses.seen.get(&address).is_some_and(|seen| seen.left < self.quota.burst_size().get());
        if !is_counted && !self.has_room(&mut addresses, now) {
            return;
        }
        let left = self.limiter.check_key(&address).map_or(0, |left| left.remaining_burst_capacity());
        if let Some(seen) = addresses.seen.get_mut(&address) {
            (seen.left, seen.since) = (left, now);
        }
    }

    fn leave(&self, address: IpAddr) {
        let (now, mut addresses) = (self.limiter.clock().now(), self.addresses());
        let Some(seen) = addresses.seen.get_mut(&address) else { return };
        seen.under_way = seen.under_way.saturating_sub(1);
        seen.back.notify_one();
        if seen.is_idle(self.quota, now) {
            addresses.seen.remove(&address);
        }
    }

    /// For one more address.
    fn has_room(&self, addresses: &mut Addresses<C::Instant>, now: C::Instant) -> bool {
        self.limiter.len() < MANY || (self.sweep(addresses, now, Duration::from_secs(1)) && self.limiter.len() < MANY)
    }

    /// Whether it was time for it.
    fn sweep(&self, addresses: &mut Addresses<C::Instant>, now: C::Instant, every: Duration) -> bool {
        let since: Duration = now.duration_since(addresses.swept).into();
        if since < every {
            return false;
        }
        addresses.swept = now;
        addresses.seen.retain(|_, seen| !seen.is_idle(self.quota, now));
        addresses.seen.shrink_to_fit();
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        pin::pin,
    };

    use futures::FutureExt as _;
    use governor::clock::FakeRelativeClock;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn attempts(burst: u32, per_minute: u32) -> (Attempts<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Attempts::by(manifest::Attempts { burst, per_minute }, clock.clone()), clock)
    }

    fn begin(attempts: &Attempts<FakeRelativeClock>, address: IpAddr) -> Result<Place<'_, FakeRelativeClock>> {
        attempts.begin(address).now_or_never().expect("it waits")
    }

    fn right(attempts: &Attempts<FakeRelativeClock>, address: IpAddr) {
        drop(begin(attempts, address).unwrap());
    }

    fn wrong(attempts: &Attempts<FakeRelativeClock>, address: IpAddr) {
        begin(attempts, address).unwrap().failed();
    }

    fn refused(attempts: &Attempts<FakeRelativeClock>, address: IpAddr) -> Error {
        begin(attempts, address).err().expect("it was not refused")
    }

    #[test]
    fn an_address_has_a_burst_and_then_one_attempt_after_the_other() {
        let (attempts, clock) = attempts(3, 30);
        (0..3).for_each(|_| wrong(&attempts, HERE));
        let error = refused(&attempts, HERE);
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some(REASON)));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        right(&attempts, THERE);
        clock.advance(Duration::from_millis(1_999));
        refused(&attempts, HERE);
        clock.advance(Duration::from_millis(1));
        wrong(&attempts, HERE);
        // One had come back, and was taken.
        refused(&attempts, HERE);
        clock.advance(Duration::from_secs(6));
        (0..3).for_each(|_| wrong(&attempts, HERE));
        refused(&attempts, HERE);
    }

    #[test]
    fn who_is_right_takes_no_attempt() {
        let (attempts, _) = attempts(2, 60);
        (0..100).for_each(|_| right(&attempts, HERE));
        assert!(attempts.addresses().seen.is_empty());
        wrong(&attempts, HERE);
        (0..100).for_each(|_| right(&attempts, HERE));
        wrong(&attempts, HERE);
        refused(&attempts, HERE);
    }

    #[test]
    fn at_once_no_more_are_looked_at_than_there_are_attempts_left_and_the_others_wait() {
        let (attempts, clock) = attempts(2, 60);
        let (one, other) = (begin(&attempts, HERE).unwrap(), begin(&attempts, HERE).unwrap());
        let mut third = pin!(attempts.begin(HERE));
        let mut fourth = pin!(attempts.begin(HERE));
        let mut fifth = pin!(attempts.begin(HERE));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        assert!(fifth.as_mut().now_or_never().is_none());
        right(&attempts, THERE);
        // Right: whoever waited first has its place.
        drop(one);
        let third = third.as_mut().now_or_never().expect("a place came back").unwrap();
        assert!(fourth.as_mut().now_or_never().is_none());
        // Wrong: its place is gone, and its attempt.
        other.failed();
        assert!(fourth.as_mut().now_or_never().is_none());
        third.failed();
        // The fourth came back to the end of the line.
        for waits in [fifth.as_mut(), fourth.as_mut()] {
            let error = waits.now_or_never().expect("nobody is left to wait for").err().expect("no attempt was left");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        }
        clock.advance(Duration::from_secs(1));
        right(&attempts, HERE);
    }

    #[test]
    fn who_gives_up_waiting_keeps_nobody_waiting() {
        let (attempts, _) = attempts(1, 60);
        let one = begin(&attempts, HERE).unwrap();
        let mut next = Box::pin(attempts.begin(HERE));
        let mut last = pin!(attempts.begin(HERE));
        assert!(next.as_mut().now_or_never().is_none() && last.as_mut().now_or_never().is_none());
        drop(one);
        // It was told that it may come, and goes.
        drop(next);
        drop(last.as_mut().now_or_never().expect("a place came back").unwrap());
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        let (attempts, _) = attempts(1, 60);
        let of = |network: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
        wrong(&attempts, of(1, 1));
        refused(&attempts, of(1, 2));
        right(&attempts, of(2, 1));
    }

    #[test]
    fn addresses_beyond_the_bound_are_not_kept_and_known_ones_are_counted_on_and_old_ones_are_forgotten() {
        let (attempts, clock) = attempts(2, 60);
        let kept = || (attempts.limiter.len(), attempts.addresses().seen.len());
        let address = |number: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()));
        (0..MANY + 1_000).for_each(|number| wrong(&attempts, address(number)));
        assert_eq!(kept(), (MANY, MANY));
        (0..10).for_each(|_| wrong(&attempts, address(MANY)));
        wrong(&attempts, address(0));
        refused(&attempts, address(0));
        clock.advance(SWEEP);
        wrong(&attempts, HERE);
        assert_eq!(kept(), (1, 1));
    }
}
