//! Safety: shields that judge text at the stages of a turn.
//!
//! ```text
//! RunShield ─ router ─┬─ patterns ──── keywords and expressions, whatever disguises them
//!                     ├─ pii ───────── personal data, secrets, canary strings
//!                     ├─ unicode ───── hidden and confusable characters
//!                     ├─ code ──────── insecure code, by rules of its language
//!                     └─ remote ────── another process, in any language, by gRPC
//! ```

use llama_stack_core::Registry;

mod code;
pub mod normalise;
mod patterns;
mod pii;
mod remote;
mod router;
mod rules;
mod unicode;

pub use router::Router;

pub fn register(registry: &mut Registry) {
    registry.safety.add("inline::code-rules", code::build);
    registry.safety.add("inline::patterns", patterns::build);
    registry.safety.add("inline::pii", pii::build);
    registry.safety.add("inline::unicode", unicode::build);
    registry.safety.add("remote::grpc", remote::build);
}
