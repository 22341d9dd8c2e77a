//! Safety: shields that judge text at the stages of a turn.
//!
//! ```text
//! RunShield ─ router ─┬─ prompt_guard ────────── Inference.Classify
//!                     ├─ embedding_classifier ── Inference.Embed
//!                     └─ remote ──────────────── another process, in any language, by gRPC
//! ```

use llama_stack_core::Registry;

mod embedding_classifier;
pub mod normalise;
mod prompt_guard;
mod reading;
mod remote;
mod router;
mod windows;

pub use router::Router;

pub fn register(registry: &mut Registry) {
    registry.safety.add("inline::embedding-classifier", embedding_classifier::build);
    registry.safety.add("inline::prompt-guard", prompt_guard::build);
    registry.safety.add("remote::grpc", remote::build);
}
