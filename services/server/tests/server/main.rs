//! The server from outside: real sockets, real clients, a model that says what a test wants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod agents;
mod backup;
mod batches;
mod chat;
mod client;
mod completions;
mod connections;
mod console;
mod conversations;
mod dashboard;
mod embeddings;
mod files;
mod grpc;
mod history;
mod identity;
mod ledger;
mod life;
mod limits;
mod matrix;
mod models;
mod peer;
mod probes;
mod prompts;
mod providers;
mod refusals;
mod responses;
mod safety;
mod scripted;
mod shelf;
mod shields;
mod spans;
mod traces;
mod vector_stores;
