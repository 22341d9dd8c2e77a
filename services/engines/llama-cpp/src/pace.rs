//! How long a step may be: long enough for the processor's caches, short enough that whoever cancels or comes new does
//! not wait for long.

use std::time::Duration;

/// A step that reads prompts takes about so long where others wait for it.
const STEP: Duration = Duration::from_millis(180);

/// And so long for one alone: larger steps read faster, by a sixth from 32 tokens to 128.
const STEP_ALONE: Duration = Duration::from_millis(750);

/// Fewer tokens at once are slow to read; numbers between are no use to the kernels.
const LEAST: usize = 32;

/// Prompt tokens for the next step.
#[derive(Debug)]
pub(crate) struct Pace {
    most: usize,
    /// Tokens a second, a moving average.
    rate: Option<f64>,
}

impl Pace {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, rate: None }
    }

    /// A step with `read` prompt tokens took `time`.
    pub(crate) fn took(&mut self, read: usize, time: Duration) {
        if read < LEAST || time.is_zero() {
            return;
        }
        let now = read as f64 / time.as_secs_f64();
        self.rate = Some(self.rate.map_or(now, |before| before * 0.7 + now * 0.3));
    }

    /// `alone`: nobody else is answered, and nobody waits.
    pub(crate) fn chunk(&self, alone: bool) -> usize {
        let Some(rate) = self.rate else { return LEAST.min(self.most) };
        let time = if alone { STEP_ALONE } else { STEP };
        let tokens = (rate * time.as_secs_f64()) as usize;
        (tokens / LEAST * LEAST).clamp(LEAST.min(self.most), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunk_follows_the_speed_of_the_machine() {
        let mut pace = Pace::new(256);
        assert_eq!((pace.chunk(false), pace.chunk(true)), (32, 32));
        pace.took(32, Duration::from_millis(128));
        assert_eq!((pace.chunk(false), pace.chunk(true)), (32, 160));
        (0..20).for_each(|_| pace.took(160, Duration::from_secs(2)));
        assert_eq!((pace.chunk(false), pace.chunk(true)), (32, 32));
        (0..20).for_each(|_| pace.took(32, Duration::from_millis(1)));
        assert_eq!((pace.chunk(false), pace.chunk(true)), (256, 256));
    }

    #[test]
    fn steps_that_only_write_say_nothing_of_reading() {
        let mut pace = Pace::new(256);
        pace.took(32, Duration::from_millis(32));
        pace.took(1, Duration::from_secs(5));
        assert_eq!(pace.chunk(false), 160);
    }
}
