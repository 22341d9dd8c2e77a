//! How many requests may be asked again. Where all upstreams fail, retries would only be more load on what is left.

use serde::Deserialize;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Of one request, after its first attempt. Default 2.
    pub(super) attempts: u32,
    /// Retries in ten seconds, as a share of the requests in them. Default 20.
    pub(super) budget_percent: u32,
    /// Retries in ten seconds that are allowed whatever share they are: a pool with little to do is not denied any.
    /// Default 10.
    pub(super) minimum: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 20, minimum: 10 }
    }
}

/// Seconds that count.
const WINDOW: usize = 10;

/// Requests and retries of the last ten seconds, a slot for each second.
pub(super) struct Budget {
    limits: Limits,
    start: Instant,
    slots: [Slot; WINDOW],
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// Since the start.
    second: u64,
    requests: u64,
    retries: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, start: now, slots: [Slot::default(); WINDOW] }
    }

    /// One more request.
    pub(super) fn request(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Whether one may be asked again; if so, it counts.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let second = self.second(now);
        let recent = self.slots.iter().filter(|slot| slot.second + WINDOW as u64 > second);
        let (requests, retries) = recent.fold((0, 0), |(requests, retries), slot| (requests + slot.requests, retries + slot.retries));
        let allowed = (requests * u64::from(self.limits.budget_percent) / 100).max(self.limits.minimum.into());
        if retries >= allowed {
            return false;
        }
        self.slot(now).retries += 1;
        true
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    fn slot(&mut self, now: Instant) -> &mut Slot {
        let second = self.second(now);
        let slot = &mut self.slots[second as usize % WINDOW];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_and_come_back_with_time() {
        let now = Instant::now();
        let mut budget = Budget::new(Limits { attempts: 2, budget_percent: 20, minimum: 3 }, now);
        (0..100).for_each(|_| budget.request(now));
        assert_eq!((0..100).filter(|_| budget.retry(now)).count(), 20);
        let later = now + Duration::from_secs(9);
        assert!(!budget.retry(later), "the window is ten seconds");
        let later = now + Duration::from_secs(10);
        assert_eq!((0..100).filter(|_| budget.retry(later)).count(), 3, "a few are always allowed");
    }
}
