//! From a document to passages: how long they are, where they may be cut, and where in the document they lie.
//!
//! ```text
//! Parsed ─ whole (one text, its places) ─ pieces ─┬─ static     words                      ┐
//!                                                 ├─ sentence   sentences                  ├─ pack ─ Passage
//!                                                 └─ structure  sections, functions, rows  ┘          └─ contextual
//! ```

mod contextual;
mod estimate;
mod pack;
mod strategy;
mod structure;
mod whole;

use llama_stack_core::Result;
use llama_stack_proto::v1::{ChunkingStrategy, chunking_strategy::Kind};

use crate::{Parsed, Passage};
use pack::Budget;
use whole::Whole;

pub use contextual::{LINE_TOKENS, contextual};
pub use estimate::Estimate;
pub use strategy::{DEFAULT_MAX_CHUNK_TOKENS, DEFAULT_OVERLAP_TOKENS, validate};

/// Counts as the model does that will embed the passages.
///
/// Called often and for short texts: an implementation that has to ask another process should answer with [`Estimate`].
pub trait CountTokens: Send + Sync {
    /// Without the tokens that a model puts around every text.
    fn count(&self, text: &str) -> usize;

    /// The longest text that the model reads to its end, in tokens. `auto` makes no longer passages.
    fn window(&self) -> Option<usize> {
        None
    }
}

/// A document as one text, in which every passage of it stands as it is.
pub fn whole_text(parsed: &Parsed) -> String {
    Whole::new(parsed).text
}

/// Cuts a document into passages, none longer than the strategy says as `tokens` counts, all of its text in at least one.
///
/// `contextual` is cut as `auto` is; the model's step is [`contextual`]. Takes time in proportion to the text: not for the
/// async threads.
///
/// # Errors
/// `InvalidArgument` for lengths out of range (see [`validate`]), with the field.
pub fn chunk(parsed: &Parsed, strategy: &ChunkingStrategy, tokens: &dyn CountTokens) -> Result<Vec<Passage>> {
    let strategy = validate(strategy)?;
    let whole = Whole::new(parsed);
    let mut most = strategy.max_chunk_tokens as usize;
    if matches!(strategy.kind(), Kind::Auto | Kind::Contextual) {
        most = tokens.window().map_or(most, |window| most.min(window.max(1)));
    }
    let overlap = (strategy.overlap_tokens as usize).min(most / 2);
    let mut budget = Budget::new(&whole.text, most, overlap, tokens);
    let pieces = match strategy.kind() {
        Kind::Static => structure::words(&whole, 0..whole.text.len()),
        Kind::Sentence => structure::sentences(&whole, &mut budget),
        _ => structure::blocks(parsed, &whole, &mut budget),
    };
    Ok(budget.pack(&pieces).into_iter().filter_map(|range| whole.passage(range)).collect())
}
