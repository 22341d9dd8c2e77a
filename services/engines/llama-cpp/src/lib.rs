//! Chat, completion, embeddings and reranking in this process, on llama.cpp: GGUF files, fast on plain CPUs.
//!
//! ```text
//! ChatRequest ─ provider ─ LocalModel ─┬─ models::decode    template → tokens, context checked: a Plan
//!                                      ├─ admission         as many as run and wait, no more
//!                                      └─ Engine ── a thread of its own, which owns the context
//!                                            │        models::batching::Scheduler ─ step ─ Context (llama.cpp)
//!                                            │                    │ logits (guesser: a second, small model, where one is named)
//!                                            │                 Chooser, one per answer
//! ChatEvent ←─ models::decode ←──────────────┘ ←──────────────────┘ tokens, by a bounded channel
//! ```
//!
//! llama.cpp computes; what runs together, what is known already and which token comes next is decided outside of it.
//! Misuse of it ends the whole process, so every call whose conditions it asserts is made from one place (`context`),
//! which checks them first.

use llama_stack_core::Registry;

mod config;
mod context;
mod engine;
mod guesser;
mod kind;
mod load;
mod model;
mod pace;
mod provider;
mod room;
mod vectors;
mod warm;

pub use config::{Config, Options};
pub use provider::build;

/// Adds `inline::llama-cpp`.
pub fn register(registry: &mut Registry) {
    registry.inference.add("inline::llama-cpp", build);
}
