//! The provider on real weights: what a caller would notice.
//!
//! Models come from `LLAMA_STACK_TEST_MODELS`, or `~/.cache/llama-stack-test-models`; what is not there is fetched once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they skip"
)]

mod answers;
mod constraints;
mod crosstalk;
mod files;
mod limits;
mod support;
