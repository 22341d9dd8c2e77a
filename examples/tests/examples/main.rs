//! Every program of this folder, run: against a real server with a model whose words are fixed, by the runtimes that this
//! machine has. The starter's real models are asked by `stack-cli/tests/starter.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod apps;
mod languages;
mod programs;
mod providers;
mod runtimes;
mod stack;
