use std::{
    future::Future,
    time::{Duration, Instant},
};

use llama_stack_core::{Context, Result};
use llama_stack_proto::v1::InvokeToolResponse;

use crate::told;

/// Runs a call within the caller's deadline and within `limit`.
///
/// A tool that is too slow is the tool's own failure, so the model is told; the caller's deadline is an error.
///
/// # Errors
/// `DeadlineExceeded` where the caller's deadline comes first, else those of `call`.
pub(crate) async fn limited(
    cx: &Context,
    tool: &str,
    limit: Duration,
    call: impl Future<Output = Result<InvokeToolResponse>>,
) -> Result<InvokeToolResponse> {
    // Both may have passed before anybody looks: the first of them counts.
    if cx.deadline().is_some_and(|deadline| deadline <= Instant::now() + limit) {
        return cx.within(call).await;
    }
    match cx.within(async { Ok(tokio::time::timeout(limit, call).await) }).await? {
        Ok(result) => result,
        Err(_) => {
            let seconds = limit.as_secs_f64();
            tracing::warn!(tool, seconds, "tool timed out");
            Ok(told(tool, format!("{tool} did not answer within {seconds} seconds; it may or may not have done its work")))
        }
    }
}

/// Reads a configured number of seconds; zero and absurd values fall to the bounds.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.clamp(0.01, 86_400.0)).unwrap_or(Duration::from_secs(60))
}

/// Seconds that a call to another process may take, where nothing else is configured.
pub(crate) fn default_call() -> f64 {
    60.0
}

/// Seconds that listing another process's tools may take.
pub(crate) fn default_list() -> f64 {
    5.0
}

/// Seconds that such a list is believed.
pub(crate) fn default_list_age() -> f64 {
    30.0
}
