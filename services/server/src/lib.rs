//! The server: a manifest becomes a stack, and the stack answers on one port.
//!
//! ```text
//! Manifest ── Stack::build ──> providers, left to right ── a router per service ── agents over the store
//!                                                              │ Observed: spans and metrics
//!                Stack::serve(listener, token)                 │
//! one port ─┬─ application/grpc* ─ tonic: 11 services, health, reflection, gRPC-Web ─┤
//!           └─ everything else ─── axum: OpenAI-compatible HTTP, MCP, health, metrics ┘
//! ```
//!
//! Handlers decode, call a service, encode. What a request means is decided in the services.

mod agents;
mod assemble;
pub mod backup;
mod connections;
mod erase;
mod filed;
mod forgotten;
#[doc(hidden)]
pub mod fuzz;
mod grpc;
mod history;
mod http;
mod identity;
mod info;
mod journal;
mod limits;
mod listed;
mod mcp;
mod metrics;
mod observed;
mod openai;
mod openapi;
mod operate;
mod request_id;
mod retention;
mod safety;
mod serve;
mod stack;
mod telemetry;
mod tools;
mod vector_io;

pub use connections::raise_open_files;
pub use identity::{check_exposure, check_listen, check_tls, offline_keys};
pub use listed::check_listed;
pub use llama_stack_identity::{Policies, kinds};
pub use llama_stack_policy::{CedarPolicy, access};
pub use llama_stack_tools::check_definition;
pub use openapi::document as openapi_document;
pub use serve::bind;
pub use stack::{Options, Stack};

use llama_stack_core::Registry;

/// Every provider type that runs no model weights. The engines are added by whoever links them.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    llama_stack_inference::register(&mut registry);
    llama_stack_safety::register(&mut registry);
    llama_stack_memory::register(&mut registry);
    llama_stack_tools::register(&mut registry);
    registry
}

/// Chooses the process's TLS provider. Two are linked (a dependency brings a second one), so none is the default by
/// itself. Idempotent.
pub fn install_crypto() {
    // An `Err` says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
