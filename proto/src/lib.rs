//! The contract of llama-stack: messages, and stubs of every service, generated from `llama_stack/v1/*.proto`.
//!
//! ```text
//! llama_stack/v1/*.proto ── protox, prost, tonic ──> v1::{messages, *_client, *_server}
//!                                                     │
//! ext/  small constructors and getters ───────────────┘
//! ```
//!
//! These are the only domain types of the project: services take and return them, and nothing mirrors them.

mod ext;

/// Package `llama_stack.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("llama_stack.v1");
}

/// The encoded `FileDescriptorSet` of the whole contract, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Every RPC of the contract, as `Service.Rpc`: a constant, so that a table of RPCs can be checked where it is compiled.
pub const RPCS: &[&str] = include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));
