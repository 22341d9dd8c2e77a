//! Safety: shields that judge text at the stages of a turn.
//!
//! ```text
//! RunShield ─ router ─┬─ prompt_guard ────────── Inference.Classify
//!                     ├─ embedding_classifier ── Inference.Embed
//!                     ├─ patterns ────────────── keywords and expressions, whatever disguises them
//!                     ├─ pii ─────────────────── personal data, secrets, canary strings
//!                     ├─ unicode ─────────────── hidden and confusable characters
//!                     ├─ code ────────────────── insecure code, by rules of its language
//!                     └─ remote ──────────────── another process, in any language, by gRPC
//! ```

use llama_stack_core::Registry;

mod code;
mod embedding_classifier;
pub mod normalise;
mod patterns;
mod pii;
mod prompt_guard;
mod reading;
mod remote;
mod router;
mod rules;
mod unicode;
mod windows;

pub use router::Router;

pub fn register(registry: &mut Registry) {
    registry.safety.add("inline::code-rules", code::build);
    registry.safety.add("inline::embedding-classifier", embedding_classifier::build);
    registry.safety.add("inline::patterns", patterns::build);
    registry.safety.add("inline::pii", pii::build);
    registry.safety.add("inline::prompt-guard", prompt_guard::build);
    registry.safety.add("inline::unicode", unicode::build);
    registry.safety.add("remote::grpc", remote::build);
}
