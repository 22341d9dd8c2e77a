//! Wrong credentials from one address: so many at once, and then one after the other. Who has none left waits, whatever is shown.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock, Reference as _},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::keyed::DashMapStateStore,
};
use llama_stack_core::{Code, Error, Result, manifest};

use crate::connections::network;

/// What the error, and the count of refusals, call it.
pub(super) const REASON: &str = "too_many_wrong_credentials";
/// Addresses that are told apart. Beyond them a new one is not counted: whoever has as many addresses is not held up by any of them.
const MANY: usize = 100_000;
/// How often those are forgotten that have all their attempts again; or each second, where there are many.
const SWEEP: Duration = Duration::from_secs(60);

/// Counts what was wrong, and nothing else: who is right takes no attempt.
pub(super) struct Attempts<C: Clock = DefaultClock> {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, C, StateInformationMiddleware>,
    spent: Mutex<Spent<C::Instant>>,
}

struct Spent<T> {
    /// When an address has an attempt again.
    until: HashMap<IpAddr, T>,
    swept: T,
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
        let spent = Mutex::new(Spent { until: HashMap::new(), swept: clock.now() });
        Self { limiter: RateLimiter::dashmap_with_clock(quota, clock).with_middleware(), spent }
    }

    fn spent(&self) -> MutexGuard<'_, Spent<C::Instant>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something may be shown from there. Takes nothing.
    ///
    /// # Errors
    /// `ResourceExhausted` with the time to come back.
    pub(super) fn check(&self, address: IpAddr) -> Result<()> {
        let Some(until) = self.spent().until.get(&network(address)).copied() else { return Ok(()) };
        let wait: Duration = until.duration_since(self.limiter.clock().now()).into();
        if wait.is_zero() {
            return Ok(());
        }
        let wait = wait.max(Duration::from_secs(1));
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many wrong credentials came from this address, so none is looked at now: try again in {seconds} s");
        Err(Error::new(Code::ResourceExhausted, message).with_reason(REASON).with_retry_after(wait))
    }

    /// What was shown from there was wrong.
    pub(super) fn failed(&self, address: IpAddr) {
        let (address, now, mut spent) = (network(address), self.limiter.clock().now(), self.spent());
        if !self.has_room(&mut spent, now) {
            return;
        }
        let until = match self.limiter.check_key(&address) {
            Ok(left) if left.remaining_burst_capacity() > 0 => return,
            Ok(left) => now + Nanos::from(left.quota().replenish_interval()),
            // Others from there were being looked at when the last attempt was taken.
            Err(not_until) => not_until.earliest_possible(),
        };
        let known = spent.until.entry(address).or_insert(until);
        *known = (*known).max(until);
    }

    fn has_room(&self, spent: &mut Spent<C::Instant>, now: C::Instant) -> bool {
        let (since, is_full): (Duration, _) = (now.duration_since(spent.swept).into(), self.limiter.len() >= MANY);
        if since >= SWEEP || (is_full && since >= Duration::from_secs(1)) {
            spent.swept = now;
            spent.until.retain(|_, until| *until > now);
            spent.until.shrink_to_fit();
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.len() < MANY
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use governor::clock::FakeRelativeClock;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn attempts(burst: u32, per_minute: u32) -> (Attempts<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Attempts::by(manifest::Attempts { burst, per_minute }, clock.clone()), clock)
    }

    #[test]
    fn an_address_has_a_burst_and_then_one_attempt_after_the_other() {
        let (attempts, clock) = attempts(3, 30);
        for _ in 0..3 {
            attempts.check(HERE).unwrap();
            attempts.failed(HERE);
        }
        let error = attempts.check(HERE).unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some(REASON)));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        attempts.check(THERE).unwrap();
        clock.advance(Duration::from_millis(1_999));
        assert!(attempts.check(HERE).is_err());
        clock.advance(Duration::from_millis(1));
        attempts.check(HERE).unwrap();
        attempts.failed(HERE);
        assert!(attempts.check(HERE).is_err(), "one had come back, and was taken");
        clock.advance(Duration::from_secs(6));
        for _ in 0..3 {
            attempts.check(HERE).unwrap();
            attempts.failed(HERE);
        }
        assert!(attempts.check(HERE).is_err());
    }

    #[test]
    fn asking_takes_nothing_and_those_who_were_being_looked_at_are_counted_once() {
        let (attempts, clock) = attempts(2, 60);
        (0..100).for_each(|_| attempts.check(HERE).unwrap());
        // Ten came at once, before any of them was known to be wrong.
        (0..10).for_each(|_| attempts.failed(HERE));
        assert_eq!(attempts.check(HERE).unwrap_err().retry_after(), Some(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        attempts.check(HERE).unwrap();
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        let (attempts, _) = attempts(1, 60);
        let of = |network: u16, host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
        attempts.failed(of(1, 1));
        assert!(attempts.check(of(1, 2)).is_err());
        attempts.check(of(2, 1)).unwrap();
    }

    #[test]
    fn addresses_beyond_the_bound_are_not_kept_and_old_ones_are_forgotten() {
        let (attempts, clock) = attempts(1, 60);
        let kept = || (attempts.limiter.len(), attempts.spent().until.len());
        for number in 0..u32::try_from(MANY).unwrap() + 1_000 {
            attempts.failed(Ipv4Addr::from(number).into());
        }
        assert_eq!(kept(), (MANY, MANY));
        clock.advance(SWEEP);
        attempts.failed(HERE);
        assert_eq!(kept(), (1, 1));
    }
}
