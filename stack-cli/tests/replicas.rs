//! Two replicas of the binary on one Postgres. `cargo drill replicas --long` is the long form.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;

use llama_stack_drills::replicas::{Part, Size, drill};

async fn holds(part: Part) {
    // Where there is no Postgres, that has been said.
    let Some(verdict) = drill(Path::new(env!("CARGO_BIN_EXE_llama-stack")), Size::SHORT, part).await else { return };
    assert!(verdict.holds, "{}", verdict.line);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    holds(Part::Rolling).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_writes_nothing_and_its_turn_is_finished_once() {
    holds(Part::Zombie).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_restarted_costs_nothing_that_was_acknowledged() {
    holds(Part::Outage).await;
}
