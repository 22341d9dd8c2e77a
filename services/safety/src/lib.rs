//! Safety: shields that judge text at the stages of a turn.
//!
//! ```text
//! RunShield ─ router ── remote ── another process, in any language, by gRPC
//! ```

use llama_stack_core::Registry;

pub mod normalise;
mod remote;
mod router;

pub use router::Router;

pub fn register(registry: &mut Registry) {
    registry.safety.add("remote::grpc", remote::build);
}
