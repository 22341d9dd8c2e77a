//! Chat and completion in this process, on mistral.rs: GGUF files and safetensors folders, CPU or GPU.
//!
//! ```text
//! ChatRequest ─ provider ─ LocalModel ─┬─ models::decode   template → tokens, context checked: a Plan
//!                                      ├─ admission        one sequence at a time, a bounded queue
//!                                      └─ making ───────── Engine (mistral.rs, a thread of its own)
//!                                           │                  │ logits of each step
//!                                           │              Choosing: models::decode's Chooser behind mistral.rs's trait
//!                                           │                  │ tokens, by a bounded channel
//! ChatEvent ←─ models::decode ←─────────────┘ ←────────────────┘
//! ```
//!
//! mistral.rs multiplies matrices and keeps the KV cache. Everything that a caller can observe is decided outside of it,
//! because in it that is missing or wrong: it is sent tokens, never messages, and its sampler is handed one token to
//! choose from.

use llama_stack_core::Registry;

mod choosing;
mod config;
mod engine;
mod load;
mod making;
mod model;
mod provider;

pub use config::{Config, Options};
pub use provider::build;

/// Adds `inline::mistralrs`.
pub fn register(registry: &mut Registry) {
    registry.inference.add("inline::mistralrs", build);
}
