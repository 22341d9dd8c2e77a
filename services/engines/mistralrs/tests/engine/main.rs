//! The provider on real weights: what a caller would notice. The promises of all engines, and what is this one's own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say what they skip"
)]

mod breaks;
mod safetensors;
mod split;
mod support;

use llama_stack_tests::conformance::local::Subject;

static SUBJECT: Subject = Subject::new("inline::mistralrs", "mistral.rs 0.8.1", llama_stack_engine_mistralrs::register, "{}");

llama_stack_tests::local_promises!(crate::SUBJECT);
