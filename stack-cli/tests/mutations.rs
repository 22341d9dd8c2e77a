//! The binary, asked for what is nearly right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;

use llama_stack_drills::mutations::{SHORT, suite};

/// Each request is the same every time; `cargo drill mutations` sends others, and a million of them.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_however_wrong_is_the_servers_fault() {
    let outcome = suite(Path::new(env!("CARGO_BIN_EXE_llama-stack")), SHORT, 1).await;
    assert!(outcome.holds(), "{} faults; resident {:?}\n{}", outcome.fault_count, outcome.resident, outcome.faults.join("\n"));
    assert!(outcome.sent >= SHORT && outcome.answers.len() >= 6, "{:?}", outcome.answers);
}
