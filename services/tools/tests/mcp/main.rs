//! `remote::mcp` against real servers: over HTTP in both generations of the protocol, and as a child process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod client;
mod groups;
mod http;
mod server;
mod stdio;
