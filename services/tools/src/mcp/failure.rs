//! What a server's failures are to our callers.

use std::{error::Error as StdError, time::Duration};

use llama_stack_core::{Code, Error};
use llama_stack_egress::refusal;
use rmcp::{ServiceError, service::ClientInitializeError, transport::streamable_http_client::StreamableHttpError};
use url::Url;

use super::config::Endpoint;

/// How a server is called in errors.
pub(super) struct Failure<'a> {
    provider: &'a str,
    /// Its host, or its program.
    place: String,
    url: Option<&'a Url>,
    token: Shown,
}

/// Whose token the server was shown.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    None,
    Stack,
    Caller,
}

impl<'a> Failure<'a> {
    pub(super) fn of(endpoint: &'a Endpoint, provider: &'a str) -> Self {
        match endpoint {
            Endpoint::Http(server) => Self { provider, place: server.host(), url: Some(server.url()), token: server.shown() },
            Endpoint::Stdio(program) => Self { provider, place: program.command.clone(), url: None, token: Shown::None },
        }
    }

    /// Whether another kind of handshake would fail as well.
    pub(super) fn is_final(&self, error: &ClientInitializeError) -> bool {
        match error {
            ClientInitializeError::TransportError { error, .. } => {
                let connects = |error: &reqwest::Error| error.is_connect() || error.is_timeout();
                auth_status(error.error.as_ref()) || of_client(error.error.as_ref()).is_some_and(connects)
            }
            // Both were tried.
            ClientInitializeError::LegacyFallbackFailed { .. } => true,
            _ => false,
        }
    }

    /// No session came about.
    ///
    /// `Unavailable` (`upstream_unreachable`) · `PermissionDenied` (`egress_refused`) its name leads to where tools may not go ·
    /// what [`Failure::call`] says of a refused token.
    pub(super) fn open(&self, error: ClientInitializeError) -> Error {
        if let (Some(url), ClientInitializeError::TransportError { error, .. }) = (self.url, &error)
            && let Some(refused) = of_client(error.error.as_ref()).and_then(|error| refusal(url, error))
        {
            return refused;
        }
        let refused = error.is_authorization_required()
            || match &error {
                ClientInitializeError::TransportError { error, .. } => auth_status(error.error.as_ref()),
                _ => false,
            };
        if refused {
            return self.refused(error);
        }
        Error::unavailable(format!("MCP server {:?} ({}) cannot be connected to", self.provider, self.place))
            .with_reason("upstream_unreachable")
            .with_source(error)
    }

    pub(super) fn slow(&self, limit: Duration) -> Error {
        let message = format!("MCP server {:?} ({}) did not shake hands within {} s", self.provider, self.place, limit.as_secs());
        Error::unavailable(message).with_reason("upstream_timeout")
    }

    /// A request was not answered.
    ///
    /// `Unavailable` (`upstream_unreachable`): it may have been carried out all the same · `Unauthenticated`
    /// (`invalid_provider_key`) the caller's key was refused · `FailedPrecondition` (`upstream_unauthorized`) the stack's.
    pub(super) fn call(&self, error: ServiceError) -> Error {
        let refused = error.is_authorization_required()
            || match &error {
                ServiceError::TransportSend(error) => auth_status(error.error.as_ref()),
                _ => false,
            };
        if refused {
            return self.refused(error);
        }
        let what = match &error {
            ServiceError::McpError(error) => format!("refused: {}", error.message),
            ServiceError::UnexpectedResponse => "answered with something that is not of the protocol".to_owned(),
            _ => "did not answer; the connection is lost".to_owned(),
        };
        Error::unavailable(format!("MCP server {:?} ({}) {what}", self.provider, self.place))
            .with_reason("upstream_unreachable")
            .with_source(error)
    }

    fn refused(&self, error: impl StdError + Send + Sync + 'static) -> Error {
        let Self { provider, place, token, .. } = self;
        let refused = match token {
            Shown::Stack => {
                Error::failed_precondition(format!("MCP server {provider:?} ({place}) refused the stack's token: check authorization"))
                    .with_reason("upstream_unauthorized")
            }
            Shown::Caller => {
                Error::new(Code::Unauthenticated, format!("MCP server {provider:?} ({place}) refused the key that you sent for it"))
                    .with_reason("invalid_provider_key")
            }
            Shown::None => {
                let message = format!(
                    "MCP server {provider:?} ({place}) wants a token: configure authorization, or send x-llama-stack-provider-key: {provider}=<token>"
                );
                Error::new(Code::Unauthenticated, message).with_reason("invalid_provider_key")
            }
        };
        refused.with_source(error)
    }
}

/// Whether the server answered 401 or 403, with a challenge or without.
fn auth_status(error: &(dyn StdError + 'static)) -> bool {
    match find::<StreamableHttpError<reqwest::Error>>(error) {
        Some(StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_)) => true,
        Some(StreamableHttpError::UnexpectedServerResponse(said)) => said.starts_with("HTTP 401") || said.starts_with("HTTP 403"),
        Some(StreamableHttpError::Client(error)) => error.status().is_some_and(|status| matches!(status.as_u16(), 401 | 403)),
        _ => false,
    }
}

/// The HTTP client's own, which the protocol's library does not name as a source.
fn of_client<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e reqwest::Error> {
    match find::<StreamableHttpError<reqwest::Error>>(error) {
        Some(StreamableHttpError::Client(error)) => Some(error),
        _ => None,
    }
}

fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
