//! Safety: shields that judge text at the stages of a turn.
//!
//! ```text
//! RunShield ─ router ─ verdicts (known ones) ─┬─ llama_guard ───────── Inference::complete, first-token probabilities
//!                                             ├─ openai_moderations ── a server with /v1/moderations
//!                                             └─ remote ────────────── another process, in any language, by gRPC
//! ```

use llama_stack_core::Registry;

mod judged;
mod llama_guard;
mod openai_moderations;
mod remote;
mod router;
mod verdicts;

pub mod reasons;

pub use router::Router;

pub fn register(registry: &mut Registry) {
    registry.safety.add("inline::llama-guard", llama_guard::build);
    registry.safety.add("remote::grpc", remote::build);
    registry.safety.add("remote::openai-moderations", openai_moderations::build);
}
