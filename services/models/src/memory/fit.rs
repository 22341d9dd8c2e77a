//! Whether a model fits, and what to say if not.

use std::fmt;

use llama_stack_core::{Error, Result};

use super::{Available, Footprint};

/// Contexts are told in steps of so many tokens: llama.cpp rounds up to them.
pub(super) const STEP: u32 = 256;

impl Footprint {
    /// The greatest multiple of 256 tokens that fits into so many bytes; 0 where none does.
    pub fn largest_context(&self, bytes: u64) -> u32 {
        let fits = |steps: u32| self.need(steps * STEP).total() <= bytes;
        // More tokens never need less: the bits of the answer are found from the highest down.
        (0..u32::BITS - STEP.ilog2()).rev().map(|bit| 1 << bit).fold(0, |found, more| if fits(found + more) { found + more } else { found })
            * STEP
    }

    /// Compares what `context` tokens need with what there is. Contexts below `minimum` are no advice to give.
    ///
    /// # Errors
    /// `FailedPrecondition` (`out_of_memory`; not `ResourceExhausted`, since to come back later does not help) with all
    /// numbers in GiB, and the largest context that fits (`field` is then `context_length`), or how much is missing.
    pub fn check(&self, available: Available, context: u32, minimum: u32) -> Result<()> {
        let need = self.need(context);
        if need.total() <= available.bytes {
            return Ok(());
        }
        let least = minimum.clamp(1, context.max(1));
        let (largest, missing) = (self.largest_context(available.bytes), |bytes: u64| Gib::up(bytes.saturating_sub(available.bytes)));
        let (advice, field) = if largest >= least {
            (format!("a context_length of {largest} is the largest that fits"), Some("context_length"))
        } else if need.weights > available.bytes {
            (format!("not even the weights fit, {} are missing", missing(need.weights)), None)
        } else {
            (format!("not even {least} tokens of context fit, {} are missing", missing(self.need(least).total())), None)
        };
        let message = format!(
            "needs {} of memory (weights {}, KV cache of {context} tokens {}, scratch {}) and {} are available{}: {advice}",
            Gib::up(need.total()),
            Gib::up(need.weights),
            Gib::up(need.kv_cache),
            Gib::up(need.scratch),
            Gib::down(available.bytes),
            if available.limited { " under the limit of its control group" } else { "" },
        );
        let error = Error::failed_precondition(message).with_reason("out_of_memory");
        Err(match field {
            Some(field) => error.with_field(field),
            None => error,
        })
    }
}

/// Tenths of a GiB. Needs are rounded up and what there is down, so that the numbers of a refusal never seem to fit.
struct Gib(u128);

impl Gib {
    fn up(bytes: u64) -> Self {
        Self((u128::from(bytes) * 10).div_ceil(1 << 30))
    }

    fn down(bytes: u64) -> Self {
        Self((u128::from(bytes) * 10) >> 30)
    }
}

impl fmt::Display for Gib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} GiB", self.0 / 10, self.0 % 10)
    }
}
