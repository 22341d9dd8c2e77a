//! Whole stacks on free ports, with a model whose words are fixed, spoken to over gRPC and HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod approvals;
mod bucket;
mod conformance;
mod erased;
mod mcp;
mod memory;
mod playground;
mod running;
mod sdks;
mod shields;
mod stacks;
mod streams;
mod transcripts;
mod turns;
