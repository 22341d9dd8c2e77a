//! Which sequences run together, and on what they have read before: continuous batching over one cache.
//!
//! ```text
//! Job ─ submit ─> Scheduler ─ step ─┬─ reap      cancelled, past their deadline
//!                                   ├─ admit     fair between tenants; the longest known prefix is shared, not read again
//!                                   ├─ compose   a token of each running answer, drafts, and a chunk of prompts
//!                                   ├─ Backend::decode
//!                                   └─ Answer::next, for each sequence that has come to its last token
//! ```
//! No engine, no thread and no clock: the engine's thread calls [`Scheduler::step`] with the time, and tests call it with
//! a model of their own.

mod cache;
mod draft;
mod scheduler;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use llama_stack_core::Error;

pub use cache::{Begun, Cache};
pub use llama_stack_core::Priority;
pub use scheduler::{Job, Limits, Scheduler, Worked};

/// The number of a sequence in the engine's cache.
pub type Sequence = u32;

/// One token to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sequence: Sequence,
    /// In its sequence, from 0.
    pub position: u32,
    pub token: u32,
    /// What follows it is wanted.
    pub logits: bool,
}

/// An engine: a model with a cache, whose cells hold tokens of one or more sequences.
pub trait Backend {
    /// Computes `entries`, which continue their sequences in order, and stores them in the cache; all or none.
    ///
    /// # Errors
    /// With the cache as it was before.
    fn decode(&mut self, entries: &[Entry]) -> Result<(), Error>;

    /// The logits after the `index`th entry of the last decode, which asked for them.
    fn logits(&mut self, index: usize) -> &mut [f32];

    /// Makes the first `length` cells of `from` those of `to` as well; `to` is empty.
    fn share(&mut self, from: Sequence, to: Sequence, length: u32);

    /// Takes a sequence out of its cells from `length` on; cells of no sequence are free.
    fn cut(&mut self, sequence: Sequence, length: u32);

    /// At most so many tokens that a second model thinks follow `tokens`: nothing where it doubts; none where there is no
    /// such model, or where it has still to read. What it keeps of them is this tenant's alone.
    fn guess(&mut self, _tenant: &Arc<str>, _tokens: &[u32], _most: usize) -> Option<Vec<u32>> {
        None
    }
}

/// Who chooses the tokens of one answer, and is told how it goes.
pub trait Answer {
    /// The first `cached` tokens of the prompt need not be read.
    fn begun(&mut self, cached: u32);

    /// The next token, or none: the answer is done.
    fn next(&mut self, logits: &mut [f32]) -> Option<u32>;

    /// Tokens that [`Answer::next`] chooses next whatever the logits.
    fn ahead(&self) -> &[u32] {
        &[]
    }

    /// Whether nobody wants more of it.
    fn is_over(&self) -> bool;

    fn fail(&mut self, error: Error);
}

impl Answer for crate::decode::Chooser {
    fn begun(&mut self, cached: u32) {
        Self::begun(self, cached);
    }

    fn next(&mut self, logits: &mut [f32]) -> Option<u32> {
        Self::next(self, logits)
    }

    fn ahead(&self) -> &[u32] {
        Self::ahead(self)
    }

    fn is_over(&self) -> bool {
        Self::is_over(self)
    }

    fn fail(&mut self, error: Error) {
        Self::fail(self, error);
    }
}
