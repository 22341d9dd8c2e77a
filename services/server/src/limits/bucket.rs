//! A rate: a bucket that fills evenly, and that may be in debt, since what a model writes is known only afterwards.

use std::time::{Duration, Instant};

/// So many in a minute, all of them at once at the most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    capacity: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn per_minute(count: u32, now: Instant) -> Self {
        Self { capacity: count.into(), level: count.into(), at: now }
    }

    pub(super) fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.capacity / 60.0).min(self.capacity);
        self.at = now;
    }

    /// How long until there is one; zero where there is.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        self.until(1.0)
    }

    fn until(&self, level: f64) -> Duration {
        // Rounding must not make a wait of nothing out of a level that was just filled.
        let missing = level - self.level;
        if missing <= 1e-9 { Duration::ZERO } else { Duration::from_secs_f64((missing * 60.0 / self.capacity).min(86_400.0)) }
    }

    pub(super) fn take(&mut self, count: f64) {
        self.level -= count;
    }

    /// Takes what is used already, into debt if need be.
    pub(super) fn charge(&mut self, count: f64, now: Instant) {
        // What comes back until now comes first: a full bucket must not make up for it afterwards.
        self.fill(now);
        self.take(count);
    }

    pub(super) fn limit(&self) -> u64 {
        self.capacity as u64
    }

    pub(super) fn left(&self) -> u64 {
        self.level.max(0.0) as u64
    }

    /// How long until it is full.
    pub(super) fn reset(&self) -> Duration {
        self.until(self.capacity)
    }

    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.reset().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_comes_back_evenly_and_never_beyond_the_limit() {
        let begin = Instant::now();
        let mut bucket = Bucket::per_minute(60, begin);
        for _ in 0..60 {
            assert!(bucket.wait(begin).is_zero());
            bucket.take(1.0);
        }
        assert_eq!((bucket.wait(begin), bucket.left()), (Duration::from_secs(1), 0));
        let later = begin + Duration::from_secs(10);
        assert!(bucket.wait(later).is_zero());
        assert_eq!((bucket.left(), bucket.reset()), (10, Duration::from_secs(50)));
        assert!(bucket.is_full(begin + Duration::from_secs(3_600)));
        assert_eq!((bucket.left(), bucket.limit()), (60, 60));
    }

    #[test]
    fn a_debt_is_waited_for() {
        let begin = Instant::now();
        let mut bucket = Bucket::per_minute(600, begin);
        bucket.take(1_799.0);
        assert_eq!((bucket.left(), bucket.wait(begin)), (0, Duration::from_secs(120)));
        assert!(!bucket.wait(begin + Duration::from_secs(119)).is_zero());
        assert!(bucket.wait(begin + Duration::from_millis(120_001)).is_zero());
    }

    #[test]
    fn what_is_charged_late_is_not_made_up_for_by_the_time_before() {
        let begin = Instant::now();
        let mut bucket = Bucket::per_minute(60, begin);
        let later = begin + Duration::from_secs(60);
        bucket.charge(70.0, later);
        assert_eq!((bucket.left(), bucket.wait(later)), (0, Duration::from_secs(11)));
    }
}
