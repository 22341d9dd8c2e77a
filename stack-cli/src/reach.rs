//! How a stack is reached, and what to say where it does not answer.

use std::time::Duration;

use llama_stack_core::{Code, Error, Result, grpc::channel};
use tonic::transport::Channel;

use crate::caller::VARIABLE;

/// A channel to a stack. It connects with the first call.
pub(crate) fn connect(server: &str) -> Result<Channel> {
    channel(server, Duration::from_secs(5))
}

/// With what to do where no stack answers, or one that wants to know who asks.
pub(crate) fn explained(error: Error, server: &str) -> Error {
    if error.reason() == Some("upstream_unreachable") {
        return Error::unavailable(format!(
            "no stack answers at {server}; start one with `llama-stack run starter`, or name another with --server"
        ));
    }
    match error.code() {
        Code::Unauthenticated => and(&error, &format!("{VARIABLE} must hold a key of {server}, which `llama-stack key create` makes")),
        _ => error,
    }
}

/// As [`explained`]; where something is not there, also with the verb that lists what is.
pub(crate) fn listed(error: Error, server: &str, verb: &str) -> Error {
    let error = explained(error, server);
    match error.code() {
        Code::NotFound => and(&error, &format!("`llama-stack {verb}` shows what there is")),
        _ => error,
    }
}

/// The same error, with more at its end.
fn and(error: &Error, more: &str) -> Error {
    let longer = Error::new(error.code(), format!("{}; {more}", error.message()));
    match error.reason() {
        Some(reason) => longer.with_reason(reason),
        None => longer,
    }
}
