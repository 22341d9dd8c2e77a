//! What to say where no stack answers.

use llama_stack_core::Error;

pub(crate) fn explained(error: Error, server: &str) -> Error {
    match error.reason() {
        Some("upstream_unreachable") => Error::unavailable(format!(
            "no stack answers at {server}; start one with `llama-stack run starter`, or name another with --server"
        )),
        _ => error,
    }
}
