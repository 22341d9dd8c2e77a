//! Policies as people write them: what they decide, and what is refused before the stack starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod arguments;
mod ask;
mod facts;
mod failing;
mod rule_of_two;
mod start;
mod who;
