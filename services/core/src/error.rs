//! The one error type, and the one table that says what a code is in gRPC, in HTTP and in the OpenAI API.

use std::{error::Error as StdError, fmt, time::Duration};

use tokio::task::JoinError;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use llama_stack_proto::v1::ErrorInfo;

/// The `domain` of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "llama-stack";

/// Bytes of a message and of a field. They repeat what callers wrote, and gRPC sends both in a header, of which clients take 16 KiB:
/// a longer one would break the answer off.
const LONGEST_MESSAGE: usize = 2_000;
const LONGEST_FIELD: usize = 500;

/// What kind of failure it is. Each is one gRPC code and one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller went away or cancelled.
    Cancelled,
    /// The request is wrong whatever the state of the stack.
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    /// A queue is full or a quota used up; `retry_after` says when to come back.
    ResourceExhausted,
    /// The request is right, but not now: for example a turn that has ended cannot be resumed.
    FailedPrecondition,
    /// Lost a race with another writer.
    Aborted,
    /// More than a limit allows, for example a body's size.
    TooLarge,
    /// Not here, or not in this build.
    Unimplemented,
    Internal,
    /// Something this depends on does not answer.
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// Code, gRPC code, its name, HTTP status, OpenAI `type`.
const TABLE: [(Code, tonic::Code, &str, u16, &str); 15] = [
    (Code::Cancelled, tonic::Code::Cancelled, "CANCELLED", 499, "request_cancelled"),
    (Code::InvalidArgument, tonic::Code::InvalidArgument, "INVALID_ARGUMENT", 400, "invalid_request_error"),
    (Code::DeadlineExceeded, tonic::Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 504, "timeout_error"),
    (Code::NotFound, tonic::Code::NotFound, "NOT_FOUND", 404, "invalid_request_error"),
    (Code::AlreadyExists, tonic::Code::AlreadyExists, "ALREADY_EXISTS", 409, "conflict_error"),
    (Code::PermissionDenied, tonic::Code::PermissionDenied, "PERMISSION_DENIED", 403, "permission_error"),
    (Code::ResourceExhausted, tonic::Code::ResourceExhausted, "RESOURCE_EXHAUSTED", 429, "rate_limit_error"),
    (Code::FailedPrecondition, tonic::Code::FailedPrecondition, "FAILED_PRECONDITION", 400, "invalid_request_error"),
    (Code::Aborted, tonic::Code::Aborted, "ABORTED", 409, "conflict_error"),
    (Code::TooLarge, tonic::Code::OutOfRange, "OUT_OF_RANGE", 413, "invalid_request_error"),
    (Code::Unimplemented, tonic::Code::Unimplemented, "UNIMPLEMENTED", 501, "not_implemented_error"),
    (Code::Internal, tonic::Code::Internal, "INTERNAL", 500, "server_error"),
    (Code::Unavailable, tonic::Code::Unavailable, "UNAVAILABLE", 503, "server_error"),
    (Code::DataLoss, tonic::Code::DataLoss, "DATA_LOSS", 500, "server_error"),
    (Code::Unauthenticated, tonic::Code::Unauthenticated, "UNAUTHENTICATED", 401, "authentication_error"),
];

impl Code {
    fn row(self) -> (tonic::Code, &'static str, u16, &'static str) {
        let row = TABLE.iter().find(|row| row.0 == self);
        row.map_or((tonic::Code::Internal, "INTERNAL", 500, "server_error"), |row| (row.1, row.2, row.3, row.4))
    }

    pub fn grpc(self) -> tonic::Code {
        self.row().0
    }

    /// gRPC's name, for example `NOT_FOUND`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// `error.type` of the OpenAI API.
    pub fn openai_type(self) -> &'static str {
        self.row().3
    }

    pub fn from_grpc(code: tonic::Code) -> Self {
        TABLE.iter().find(|row| row.1 == code).map_or(Code::Internal, |row| row.0)
    }

    pub fn from_name(name: &str) -> Self {
        TABLE.iter().find(|row| row.2 == name).map_or(Code::Internal, |row| row.0)
    }

    /// The code for another server's HTTP status.
    pub fn from_http_status(status: u16) -> Self {
        match status {
            400 | 405 | 406 | 415 | 422 => Code::InvalidArgument,
            408 | 504 => Code::DeadlineExceeded,
            409 => Code::Aborted,
            502 => Code::Unavailable,
            other => TABLE.iter().find(|row| row.3 == other).map_or(Code::Internal, |row| row.0),
        }
    }
}

/// A failure: what kind, what to tell the caller, and, for the log alone, what caused it.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    reason: Option<String>,
    field: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// What is told of a panic as a cause: what it says itself may quote what was being read.
    pub const PANICKED: &str = "a panic, which the log has with its place";

    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = bounded(message.into(), LONGEST_MESSAGE);
        Self(Box::new(Inner { code, message, reason: None, field: None, retry_after: None, source: None }))
    }

    /// A field of the request is wrong. `field` is its path, for example `messages[2].content`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message).with_field(field)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// A defect or a broken machine. The caller sees `message`, never the cause.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub fn unimplemented(what: impl fmt::Display) -> Self {
        Self::new(Code::Unimplemented, format!("{what} is not implemented here"))
    }

    /// `context_length_exceeded` with both numbers.
    pub fn context_length(limit: u32, asked: u32) -> Self {
        let message = format!("this model's context is {limit} tokens; the request needs {asked}: shorten the messages or max_tokens");
        Self::invalid("messages", message).with_reason("context_length_exceeded")
    }

    /// A stable word for programs: `error.code` of the OpenAI API, `reason` of `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = bounded(message.into(), LONGEST_MESSAGE);
        self
    }

    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(bounded(field.into(), LONGEST_FIELD));
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The cause, for the log. Of a task that broke off, which tells its panic's words, only that it did.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Box<dyn StdError + Send + Sync> = source.into();
        let broken = source.downcast_ref::<JoinError>().map(JoinError::is_panic);
        self.0.source = Some(match broken {
            Some(true) => Self::PANICKED.into(),
            Some(false) => "its task was cancelled".into(),
            None => source,
        });
        self
    }

    /// Says in front of the message where it happened.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.0.message = bounded(format!("{place}: {}", self.0.message), LONGEST_MESSAGE);
        self
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// As it is stored in a turn.
    pub fn to_info(&self) -> ErrorInfo {
        ErrorInfo { code: self.code().name().into(), message: self.message().into(), reason: self.reason().unwrap_or_default().into() }
    }
}

/// The beginning and the end of what is longer than `most` bytes.
fn bounded(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let half = most / 2 - '…'.len_utf8();
    let end = text.ceil_char_boundary(text.len() - half);
    format!("{}…{}", &text[..text.floor_char_boundary(half)], &text[end..])
}

impl From<&ErrorInfo> for Error {
    fn from(info: &ErrorInfo) -> Self {
        let error = Error::new(Code::from_name(&info.code), info.message.clone());
        if info.reason.is_empty() { error } else { error.with_reason(info.reason.clone()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("code", &inner.code).field("message", &inner.message);
        for (name, value) in [("reason", &inner.reason), ("field", &inner.field)] {
            value.as_ref().map(|value| debug.field(name, value));
        }
        inner.source.as_ref().map(|source| debug.field("source", source));
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Some(source) = &error.0.source {
            tracing::warn!(code = error.code().name(), message = error.message(), cause = %source, "call failed");
        }
        let mut details = ErrorDetails::new();
        if let Some(reason) = error.reason() {
            details.set_error_info(reason, DOMAIN, std::collections::HashMap::<String, String>::new());
        }
        if let Some(field) = error.field() {
            details.add_bad_request_violation(field, error.message());
        }
        if let Some(after) = error.retry_after() {
            details.set_retry_info(Some(after));
        }
        if error.code() == Code::ResourceExhausted {
            details.add_quota_failure_violation(error.reason().unwrap_or("capacity"), error.message());
        }
        Status::with_error_details(error.code().grpc(), error.message(), details)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let mut error = Error::new(Code::from_grpc(status.code()), status.message());
        let details = status.get_error_details();
        error.0.reason = details.error_info().map(|info| info.reason.clone());
        error.0.field = details.bad_request().and_then(|bad| bad.field_violations.first()).map(|violation| violation.field.clone());
        error.0.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a client that takes 16 KiB of headers sees a broken answer in place of the error.
    #[test]
    fn what_a_caller_wrote_is_repeated_within_bounds() {
        let long = "é".repeat(100_000);
        let error = Error::invalid(format!("metadata.{long}"), format!("no {long}; it must be short")).context(&long);
        assert!(error.message().len() <= 2_000 && error.message().ends_with("it must be short"), "{}", error.message().len());
        assert!(error.field().unwrap().len() <= 500 && error.field().unwrap().starts_with("metadata.é"));
        let mut headers = Status::from(error).into_http::<()>().headers().clone();
        headers.remove("content-type");
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes < 16 << 10, "{bytes}");
    }

    #[test]
    fn every_code_survives_the_wire() {
        for (code, ..) in TABLE {
            let error = Error::new(code, "said so").with_reason("why").with_field("a[0].b").with_retry_after(Duration::from_secs(3));
            let back = Error::from(Status::from(error));
            assert_eq!((back.code(), back.message(), back.reason(), back.field()), (code, "said so", Some("why"), Some("a[0].b")));
            assert_eq!(back.retry_after(), Some(Duration::from_secs(3)));
            assert_eq!(Code::from_name(code.name()), code);
        }
    }

    #[tokio::test]
    async fn what_a_panic_says_is_no_cause_that_is_logged() {
        let broken = tokio::task::spawn_blocking::<_, ()>(|| panic!("somebody's words")).await.unwrap_err();
        assert!(broken.to_string().contains("somebody's words"));
        let error = Error::internal("reading broke off").with_source(broken);
        assert_eq!(error.source().unwrap().to_string(), Error::PANICKED);
        assert!(!format!("{error:?}").contains("words"), "{error:?}");
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let error = Error::internal("reading broke off").with_source(task.await.unwrap_err());
        assert_eq!(error.source().unwrap().to_string(), "its task was cancelled");
    }

    #[test]
    fn a_cause_never_leaves_the_process() {
        let error = Error::internal("the database failed").with_source("password=hunter2");
        assert!(!format!("{:?}", Status::from(error)).contains("hunter2"));
    }
}
