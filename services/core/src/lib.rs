//! The contract in Rust: one trait per service, and what every call shares.
//!
//! ```text
//!            Context ──┐                        ┌── Error (one table of codes)
//! Arc<dyn Inference> ──┴─ trait methods ────────┴── Result<T> | EventStream<T>
//!      │ is any of: a local model · a router · Remote (gRPC client) · a guard · a test double
//!      └ Served puts it on the wire, Remote takes it off; `grpc_service!` writes both
//!
//! Manifest ── names providers ──> Registry (type → factory) ──> Arc<dyn …>
//! ```

pub mod attributes;
pub mod context;
pub mod directory;
pub mod error;
pub mod failpoint;
pub mod fold;
pub mod forget;
pub mod grpc;
pub mod guard;
pub mod ids;
pub mod manifest;
pub mod page;
pub mod private;
pub mod registry;
pub mod service;
pub mod trace;

use std::pin::Pin;

use futures::Stream;

pub use context::{Authenticated, Context, Principal, Priority};
pub use error::{Code, Error};
pub use manifest::Manifest;
pub use registry::{Deps, Progress, Registry, Table};
pub use service::{Agents, Batches, Files, Identity, Inference, Memory, Prompts, Safety, Stack, Telemetry, Tools, no_such_model};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `==` of texts where the program is compiled, so that tables that disagree are no program.
pub const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Events as they happen. Dropping it cancels what makes them, unless the method says otherwise.
pub type EventStream<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;
