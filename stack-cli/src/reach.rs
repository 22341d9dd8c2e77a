//! What to say where no stack answers.

use std::time::Duration;

use llama_stack_core::{Error, Result, grpc::channel};
use tonic::transport::Channel;

/// A channel to a stack. It connects with the first call.
pub(crate) fn connect(server: &str) -> Result<Channel> {
    channel(server, Duration::from_secs(5))
}

pub(crate) fn explained(error: Error, server: &str) -> Error {
    match error.reason() {
        Some("upstream_unreachable") => Error::unavailable(format!(
            "no stack answers at {server}; start one with `llama-stack run starter`, or name another with --server"
        )),
        _ => error,
    }
}
