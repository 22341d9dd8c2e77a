//! All that a stack keeps is taken out while it works, put back elsewhere, and deleted where somebody wants it gone: the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod erased;
mod parrot;
mod world;
