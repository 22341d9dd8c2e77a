//! Chat and completion in this process, on mistral.rs: GGUF files and safetensors folders, CPU or GPU.
//!
//! ```text
//! ChatRequest ─ provider ─ LocalModel ─┬─ prompt      template → text → tokens, context checked
//!                                      ├─ admission   one sequence at a time, a bounded queue
//!                                      └─ generation ─── Engine (mistral.rs, a thread of its own)
//!                                            │               │ logits of each step
//!                                            │           Chooser: logprobs, bias, grammar, sampling, the end
//!                                            │               │ tokens, by a bounded channel
//! ChatEvent ←─ chat / completion ←───────────┘ ←─────────────┘
//! ```
//!
//! mistral.rs multiplies matrices and keeps the KV cache. Everything that a caller can observe is decided here, because
//! there it is missing or wrong: it is sent tokens, never messages, and its sampler is handed one token to choose from.

use llama_stack_core::Registry;

mod chat;
mod chooser;
mod completion;
mod config;
mod engine;
mod generation;
mod grammar;
mod load;
mod logprobs;
mod model;
mod prompt;
mod provider;
mod sampler;
mod text;

pub use config::{Config, Load, Options};
pub use provider::build;

/// Adds `inline::mistralrs`.
pub fn register(registry: &mut Registry) {
    registry.inference.add("inline::mistralrs", build);
}
