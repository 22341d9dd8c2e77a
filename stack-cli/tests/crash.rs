//! The binary under `kill -9`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;

use llama_stack_drills::{
    crash::{Database, Size, storm},
    crash_memory,
};

/// At least 54 kills, at random and at every fail point, while turns run over gRPC and HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn no_turn_is_lost_or_done_twice_or_stuck_when_the_server_is_killed() {
    let verdict = storm(Path::new(env!("CARGO_BIN_EXE_llama-stack")), Size::SHORT, Database::Sqlite).await;
    assert!(verdict.holds, "{}", verdict.line);
}

/// Words, vectors and what is read in the background, while the server is killed.
#[tokio::test(flavor = "multi_thread")]
async fn what_banks_acknowledged_is_found_once_and_what_was_deleted_stays_away() {
    let verdict = crash_memory::storm(Path::new(env!("CARGO_BIN_EXE_llama-stack")), crash_memory::SHORT).await;
    assert!(verdict.holds, "{}", verdict.line);
}
