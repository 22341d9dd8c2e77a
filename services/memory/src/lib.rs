//! Memory: banks of documents, and search over them.
//!
//! ```text
//! CreateBank ─ router ── remote ── another process, in any language, by gRPC
//! Query                  (asked for in the request, else the bank's own, else the manifest's first)
//! ```

use llama_stack_core::Registry;

pub mod index;
pub mod qdrant;
mod remote;
mod router;

pub use router::Router;

pub fn register(registry: &mut Registry) {
    registry.memory.add("remote::grpc", remote::build);
}
