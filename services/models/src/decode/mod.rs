//! From a request to tokens, and from an engine's logits to the events of an answer: the same for every engine.
//!
//! ```text
//! ChatRequest ─ Lexicon ─> Plan: prompt tokens, sampling, grammar, room          (computes: off the async threads)
//! logits ─ Chooser ─ grammar, sampler, logprobs, the end ─> Made, by a bounded channel      (the engine's own thread)
//! Made ─ Generation ─ chat | completion ─> ChatEvent | CompleteEvent                             (whoever reads)
//! ```
//! An engine multiplies matrices and keeps a cache. Everything that a caller can observe is decided here.

pub mod chat;
mod chooser;
pub mod completion;
mod generation;
mod grammar;
mod lexicon;
mod logprobs;
mod plan;
mod sampler;
mod text;

pub use chooser::Chooser;
pub use generation::{Control, End, Generation, Made, Making, broken, channel};
pub use grammar::Grammar;
pub use lexicon::{ENDS, Encode, Lexicon, Parts, Writing};
pub use logprobs::Scored;
pub use plan::Plan;
pub use sampler::{Defaults, Sampler, Sampling};
pub use text::{Utf8, Vocabulary};
