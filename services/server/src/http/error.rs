//! Errors as the OpenAI API writes them.

use std::{borrow::Cow, error::Error as _, sync::Arc};

use ::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_core::{Code, Error};

use crate::connections::TOO_SLOW;

/// An error as the answer to an HTTP request.
#[derive(Debug)]
pub(crate) struct ApiError {
    error: Error,
    status: Option<StatusCode>,
}

/// `{"error": {…}}`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ErrorObject<'a> {
    message: Cow<'a, str>,
    /// What kind of error, for example `invalid_request_error`.
    r#type: &'static str,
    /// The field of the request, for example `messages[0].content`.
    param: Option<Cow<'a, str>>,
    /// A stable word for programs, for example `model_not_found`.
    code: Option<Cow<'a, str>>,
}

/// Left in a response's extensions for the log: what the client is not told.
#[derive(Clone)]
pub(crate) struct Failure(pub(crate) Arc<Error>);

impl Failure {
    /// The chain of causes, the nearest first.
    pub(crate) fn causes(&self) -> String {
        let mut causes = Vec::new();
        let mut next = self.0.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes.join(": ")
    }
}

impl<'a> From<&'a Error> for ErrorBody<'a> {
    fn from(error: &'a Error) -> Self {
        Self {
            error: ErrorObject {
                message: error.message().into(),
                r#type: error.code().openai_type(),
                param: error.field().map(Cow::from),
                code: error.reason().map(Cow::from),
            },
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let error = as_refusal(error);
        // What gRPC has one code for.
        let status = (error.reason() == Some(TOO_SLOW)).then_some(StatusCode::REQUEST_TIMEOUT);
        Self { error, status }
    }
}

/// What a field asks for and is not here: over HTTP a wrong request, as in OpenAI's API. Its clients send again, in vain, what is
/// answered with a 501.
fn as_refusal(error: Error) -> Error {
    if error.code() != Code::Unimplemented {
        return error;
    }
    match error.field().map(str::to_owned) {
        Some(field) => {
            let refusal = Error::invalid(field, error.message()).with_reason(error.reason().unwrap_or("unsupported_parameter"));
            // Its causes are the log's.
            refusal.with_source(error)
        }
        None => error,
    }
}

impl ApiError {
    /// For the HTTP statuses that no code has.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let of_code = StatusCode::from_u16(self.error.code().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (self.status.unwrap_or(of_code), axum::Json(ErrorBody::from(&self.error))).into_response();
        if let Some(after) = self.error.retry_after() {
            // Whole seconds, rounded up: a client must not come back too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Failure(Arc::new(self.error)));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let error = Error::new(Code::ResourceExhausted, "busy").with_retry_after(Duration::from_millis(1200)).with_source("disk /dev/x");
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn what_a_field_asks_in_vain_is_not_asked_again() {
        let error = Error::new(Code::Unimplemented, "no such tool here").with_field("tools[0].type");
        let response = ApiError::from(error);
        let body = serde_json::to_value(ErrorBody::from(&response.error)).unwrap();
        let told = ["type", "param", "code"].map(|key| body["error"][key].as_str().unwrap().to_owned());
        assert_eq!(told, ["invalid_request_error", "tools[0].type", "unsupported_parameter"]);
        assert_eq!(response.into_response().status(), 400);
        // Of a stack that lacks something as a whole, no request is to blame.
        assert_eq!(ApiError::from(Error::unimplemented("Rerank")).into_response().status(), 501);
    }

    #[test]
    fn a_cause_is_not_told() {
        let error = Error::internal("the store failed").with_source("password=hunter2");
        let body = serde_json::to_string(&ErrorBody::from(&error)).unwrap();
        assert_eq!(body, r#"{"error":{"message":"the store failed","type":"server_error","param":null,"code":null}}"#);
    }
}
