//! What a failure of the file means to a caller. SQLite's own words go to the log.

use std::time::Duration;

use llama_stack_core::{Code, Error};

/// Source of the codes: "Result and Error Codes" of SQLite; the low byte is the primary one.
pub(super) fn failed(error: sqlx::Error) -> Error {
    let code: Option<u32> = match &error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse().ok()),
        _ => None,
    };
    let unavailable = |message: &str, reason: &str| Error::unavailable(message).with_reason(reason);
    let told = match (code.map(|code| code & 0xff), &error) {
        // A bank's table of words goes with it: it was deleted in the midst of a search.
        (Some(1), sqlx::Error::Database(database)) if database.message().contains("no such table: words_") => {
            Error::not_found("the bank is gone").with_reason("bank_not_found")
        }
        (Some(5 | 6), _) => unavailable("the index is busy: try again", "index_busy").with_retry_after(Duration::from_secs(1)),
        (Some(13), _) => unavailable("the index's disk is full", "disk_full"),
        (Some(10), _) => unavailable("the index's disk fails", "disk_failed"),
        (Some(11 | 26), _) => Error::new(Code::DataLoss, "the index is damaged").with_reason("index_damaged"),
        (Some(3 | 8 | 14 | 23), _) => Error::failed_precondition("the index cannot be opened or written").with_reason("index_unusable"),
        (_, sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_)) => {
            unavailable("the index does not answer", "index_unavailable").with_retry_after(Duration::from_secs(1))
        }
        _ => Error::internal("the index refused a statement").with_reason("index_failed"),
    };
    tracing::warn!(code, cause = %error, "the index of a bank failed");
    told.with_source(error)
}
