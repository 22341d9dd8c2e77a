//! The documentation keeps up with the code: links lead somewhere, blocks parse, references are those of the types.
//!
//! `UPDATE_DOCS=1 cargo test --release --workspace --test docs` writes the references anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod blocks;
mod book;
mod errors;
mod grpc;
mod http;
mod links;
mod manifest;
mod pages;
mod rust_types;
mod schema;
