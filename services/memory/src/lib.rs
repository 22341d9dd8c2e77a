//! Memory: banks of documents, and search over them.
//!
//! ```text
//! CreateBank ─ router ─┬─ Banks ── tables in the store, a parser of documents, and an Index:
//! Query                │             sqlite ── one file: words by FTS5, vectors compared one by one
//!                      └─ remote ── another process, in any language, by gRPC
//!       (asked for in the request, else the bank's own, else the manifest's first)
//! ```

use llama_stack_core::Registry;

pub mod banks;
pub mod filter;
pub mod fuse;
mod handed;
pub mod index;
mod plain;
mod remote;
mod router;
mod spread;
mod sqlite;

pub use banks::{Banks, BanksParts};
pub use router::Router;
pub use sqlite::SqliteIndex;

pub fn register(registry: &mut Registry) {
    registry.memory.add("inline::sqlite", sqlite::build);
    registry.memory.add("remote::grpc", remote::build);
}
