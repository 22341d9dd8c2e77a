//! Wrong credentials from one address: so many at once, and then one after the other. Who has none left waits, whatever is shown.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Result, manifest};
use tokio::sync::Notify;

use crate::{connections::network, limits::Bucket};

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
pub(super) struct Attempts {
    config: manifest::Attempts,
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    addresses: Mutex<Addresses>,
}

struct Addresses {
    seen: HashMap<IpAddr, Seen>,
    swept: Instant,
}

/// An address from which something is looked at, or was wrong lately.
struct Seen {
    under_way: u64,
    attempts: Bucket,
    /// Wakes one of those who wait for a place.
    back: Arc<Notify>,
}

impl Seen {
    /// Whether forgetting it changes nothing.
    fn is_idle(&mut self, now: Instant) -> bool {
        let waiting = Arc::strong_count(&self.back) > 1;
        self.under_way == 0 && !waiting && self.attempts.is_full(now)
    }
}

/// One credential that is looked at. Dropping it gives its place back, and takes no attempt.
pub(super) struct Place<'a> {
    attempts: &'a Attempts,
    address: IpAddr,
}

impl Place<'_> {
    /// What was shown was wrong.
    pub(super) fn failed(self) {
        self.attempts.failed(self.address);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.attempts.leave(self.address);
    }
}

impl Attempts {
    pub(super) fn new(config: manifest::Attempts) -> Self {
        Self::by(config, Instant::now)
    }

    fn by(config: manifest::Attempts, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let addresses = Mutex::new(Addresses { seen: HashMap::new(), swept: clock() });
        Self { config, clock: Box::new(clock), addresses }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place to look at what is shown from there, as soon as there is one. Takes no attempt.
    ///
    /// # Errors
    /// `ResourceExhausted` with the time to come back.
    pub(super) async fn begin(&self, address: IpAddr) -> Result<Place<'_>> {
        let address = network(address);
        while let Some(back) = self.enter(address)? {
            back.notified().await;
        }
        Ok(Place { attempts: self, address })
    }

    /// What is to be waited for, where all places are taken.
    fn enter(&self, address: IpAddr) -> Result<Option<Arc<Notify>>> {
        let (now, mut addresses) = ((self.clock)(), self.addresses());
        addresses.sweep(now, SWEEP);
        let attempts = || Bucket::new(self.config.burst, self.config.per_minute, now);
        let fresh = || Seen { under_way: 0, attempts: attempts(), back: Arc::default() };
        let seen = addresses.seen.entry(address).or_insert_with(fresh);
        let wait = seen.attempts.wait(now);
        if wait.is_zero() {
            let left = seen.attempts.left().max(1);
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
        let wait = wait.max(Duration::from_secs(1));
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many wrong credentials came from this address, so none is looked at now: try again in {seconds} s");
        Err(Error::new(Code::ResourceExhausted, message).with_reason(REASON).with_retry_after(wait))
    }

    fn failed(&self, address: IpAddr) {
        let (now, mut addresses) = ((self.clock)(), self.addresses());
        let is_counted = addresses.seen.get_mut(&address).is_some_and(|seen| !seen.attempts.is_full(now));
        if !is_counted && !addresses.have_room(now) {
            return;
        }
        if let Some(seen) = addresses.seen.get_mut(&address) {
            seen.attempts.charge(1.0, now);
        }
    }

    fn leave(&self, address: IpAddr) {
        let (now, mut addresses) = ((self.clock)(), self.addresses());
        let Some(seen) = addresses.seen.get_mut(&address) else { return };
        seen.under_way = seen.under_way.saturating_sub(1);
        seen.back.notify_one();
        if seen.is_idle(now) {
            addresses.seen.remove(&address);
        }
    }
}

impl Addresses {
    /// For the one that is looked at.
    fn have_room(&mut self, now: Instant) -> bool {
        self.seen.len() <= MANY || (self.sweep(now, Duration::from_secs(1)) && self.seen.len() <= MANY)
    }

    /// Whether it was time for it.
    fn sweep(&mut self, now: Instant, every: Duration) -> bool {
        if now.saturating_duration_since(self.swept) < every {
            return false;
        }
        self.swept = now;
        self.seen.retain(|_, seen| !seen.is_idle(now));
        self.seen.shrink_to_fit();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr},
        pin::pin,
    };

    use super::*;
    use futures::FutureExt as _;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Goes on by hand.
    struct Clock(Arc<Mutex<Instant>>);

    impl Clock {
        fn advance(&self, by: Duration) {
            *self.0.lock().unwrap() += by;
        }
    }

    fn attempts(burst: u32, per_minute: u32) -> (Attempts, Clock) {
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = Clock(now.clone());
        (Attempts::by(manifest::Attempts { burst, per_minute }, move || *now.lock().unwrap()), clock)
    }

    fn begin(attempts: &Attempts, address: IpAddr) -> Result<Place<'_>> {
        attempts.begin(address).now_or_never().expect("it waits")
    }

    fn right(attempts: &Attempts, address: IpAddr) {
        drop(begin(attempts, address).unwrap());
    }

    fn wrong(attempts: &Attempts, address: IpAddr) {
        begin(attempts, address).unwrap().failed();
    }

    fn refused(attempts: &Attempts, address: IpAddr) -> Error {
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
        let kept = || attempts.addresses().seen.len();
        let address = |number: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()));
        (0..MANY + 1_000).for_each(|number| wrong(&attempts, address(number)));
        assert_eq!(kept(), MANY);
        (0..10).for_each(|_| wrong(&attempts, address(MANY)));
        wrong(&attempts, address(0));
        refused(&attempts, address(0));
        clock.advance(SWEEP);
        wrong(&attempts, HERE);
        assert_eq!(kept(), 1);
    }
}
