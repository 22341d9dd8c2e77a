//! A circuit breaker: whether an upstream is asked at all, by what became of what it was asked before.
//!
//! ```text
//! closed ── `failures` in a row ──> open ── its time is over ──> half open ── one request ──┬─ good ──> closed
//!                                    ^ twice as long each time                              │
//!                                    └──────────────────────────────────────────────── bad ─┘
//! ```
//!
//! It has no clock and no lock of its own: whoever asks says what time it is.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Failures in a row that open it. Default 5.
    pub(super) failures: u32,
    /// How long it stays open the first time; twice as long after each trial that fails. Default 5.
    pub(super) open_seconds: f64,
    /// The longest that it stays open. Default 60.
    pub(super) max_open_seconds: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { failures: 5, open_seconds: 5.0, max_open_seconds: 60.0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until: Instant,
        /// In a row, without a good request between.
        times: u32,
    },
    HalfOpen {
        times: u32,
    },
}

/// How the request was let in: only a trial decides on a breaker that is half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    Usual,
    Trial,
}

/// What an outcome changed, where it changed something that an operator wants to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turned {
    Opened(Duration),
    Closed,
}

pub(super) struct Breaker {
    limits: Limits,
    state: State,
}

impl Breaker {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: State::Closed { failures: 0 } }
    }

    /// `closed`, `open` or `half_open`.
    pub(super) fn name(&self) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }

    /// Whether [`Breaker::take`] would let a request in.
    pub(super) fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
            // One trial at a time.
            State::HalfOpen { .. } => false,
        }
    }

    /// When it lets the next request in, where it lets none in now and that is known.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Lets a request in, whose outcome has to be told.
    pub(super) fn take(&mut self, now: Instant) -> Option<Permit> {
        if !self.admits(now) {
            return None;
        }
        let State::Open { times, .. } = self.state else { return Some(Permit::Usual) };
        self.state = State::HalfOpen { times };
        Some(Permit::Trial)
    }

    pub(super) fn succeeded(&mut self, permit: Permit) -> Option<Turned> {
        match (self.state, permit) {
            (State::Closed { .. }, _) => {
                self.state = State::Closed { failures: 0 };
                None
            }
            (State::HalfOpen { .. }, Permit::Trial) => {
                self.state = State::Closed { failures: 0 };
                Some(Turned::Closed)
            }
            // A request from before it opened.
            _ => None,
        }
    }

    pub(super) fn failed(&mut self, permit: Permit, now: Instant) -> Option<Turned> {
        match (self.state, permit) {
            (State::Closed { failures }, _) if failures + 1 < self.limits.failures.max(1) => {
                self.state = State::Closed { failures: failures + 1 };
                None
            }
            (State::Closed { .. }, _) => Some(self.open(0, now)),
            (State::HalfOpen { times }, Permit::Trial) => Some(self.open(times, now)),
            _ => None,
        }
    }

    /// The request came to no outcome: its caller went away, or what failed was the request itself.
    pub(super) fn given_up(&mut self, permit: Permit, now: Instant) {
        if let (State::HalfOpen { times }, Permit::Trial) = (self.state, permit) {
            // The next request is the trial.
            self.state = State::Open { until: now, times };
        }
    }

    fn open(&mut self, times: u32, now: Instant) -> Turned {
        let seconds = self.limits.open_seconds * 2f64.powi(times.min(16) as i32);
        let time = Duration::from_secs_f64(seconds.min(self.limits.max_open_seconds));
        self.state = State::Open { until: now + time, times: times + 1 };
        Turned::Opened(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Limits { failures: 3, open_seconds: 1.0, max_open_seconds: 3.0 })
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<Turned> {
        let permit = breaker.take(now).unwrap();
        breaker.failed(permit, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_others_do_not() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..5 {
            assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
            let permit = breaker.take(now).unwrap();
            breaker.succeeded(permit);
        }
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(fail(&mut breaker, now), Some(Turned::Opened(Duration::from_secs(1))));
        assert!(!breaker.admits(now) && breaker.take(now).is_none());
    }

    #[test]
    fn one_trial_decides_and_each_that_fails_doubles_the_wait() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        for _ in 0..3 {
            fail(&mut breaker, now);
        }
        for seconds in [2, 3, 3] {
            now = breaker.opens_at().unwrap();
            let trial = breaker.take(now).unwrap();
            assert_eq!((trial, breaker.name()), (Permit::Trial, "half_open"));
            assert!(breaker.take(now).is_none(), "a second request beside the trial");
            assert_eq!(breaker.failed(trial, now), Some(Turned::Opened(Duration::from_secs(seconds))));
        }
        now = breaker.opens_at().unwrap();
        let trial = breaker.take(now).unwrap();
        assert_eq!(breaker.succeeded(trial), Some(Turned::Closed));
        assert_eq!((fail(&mut breaker, now), breaker.name()), (None, "closed"));
    }

    #[test]
    fn a_trial_without_an_outcome_leaves_room_for_the_next() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..3 {
            fail(&mut breaker, now);
        }
        let later = breaker.opens_at().unwrap();
        let trial = breaker.take(later).unwrap();
        breaker.given_up(trial, later);
        assert_eq!(breaker.take(later), Some(Permit::Trial));
    }

    #[test]
    fn what_was_asked_before_it_opened_decides_nothing() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let slow = breaker.take(now).unwrap();
        for _ in 0..3 {
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.succeeded(slow), None);
        assert_eq!(breaker.failed(slow, now), None);
        assert_eq!(breaker.name(), "open");
    }
}
