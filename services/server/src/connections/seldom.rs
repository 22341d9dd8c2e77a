//! Lines of the log about what peers can bring about as often as they like.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Lets one line through in ten seconds, and counts what it stands for.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<Since>);

#[derive(Default)]
struct Since {
    line: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// How many there were since the last line, with this one. None: no line yet.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.count += 1;
        if since.line.is_some_and(|line| now.saturating_duration_since(line) < EVERY) {
            return None;
        }
        since.line = Some(now);
        Some(std::mem::take(&mut since.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_a_line_at_once_and_a_flood_has_one_in_ten_seconds() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        let at = |millis: u64| seldom.due(begin + Duration::from_millis(millis));
        assert_eq!(at(0), Some(1));
        let lines: Vec<u64> = (1..=30_000).filter_map(at).collect();
        assert_eq!(lines, [10_000; 3], "each says how many it stands for");
    }
}
