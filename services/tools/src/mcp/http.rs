//! Streamable HTTP.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use llama_stack_core::{Deps, Error, Result, context::Secret};
use llama_stack_egress::{Client, Limits};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::{
        StreamableHttpClientTransport,
        common::client_side_sse::BoxedSseResponse,
        streamable_http_client::{
            StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
            StreamableHttpResponseLimits,
        },
    },
};
use url::Url;

use super::failure::Shown;
use crate::MAX_ANSWER_BYTES;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// What the protocol itself sends.
const RESERVED: [&str; 6] = ["accept", "content-type", "mcp-session-id", "mcp-protocol-version", "last-event-id", "content-length"];

/// The client for the server of `url`: through the egress guard, as a tool's. Whoever writes a server into the manifest
/// allows it by that; a caller who names one while the stack runs does not.
///
/// # Errors
/// `PermissionDenied` for what tools may not reach · `Internal` where TLS cannot be set up.
pub(super) fn client(url: &Url, deps: &Deps) -> Result<reqwest::Client> {
    let egress = if deps.at_run_time { deps.egress.clone() } else { deps.egress.clone().with_server(url) };
    let limits = Limits { connect: CONNECT, ..Limits::default() };
    Client::new(egress, limits).for_origin(url)
}

#[derive(Clone)]
pub(super) struct Server {
    url: Url,
    headers: HashMap<HeaderName, HeaderValue>,
    token: Secret,
    /// The token is a caller's.
    of_caller: bool,
    client: reqwest::Client,
}

impl Server {
    /// # Errors
    /// `InvalidArgument` on `config.url`, `config.headers.<name>` or `config.authorization`.
    pub(super) fn new(url: &str, headers: &BTreeMap<String, Secret>, token: &Secret, deps: &Deps) -> Result<Self> {
        let url: Url =
            url.parse().map_err(|error| Error::invalid("config.url", format!("not a URL like https://example.com/mcp: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(Error::invalid("config.url", "the URL must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("config.url", "the URL holds a password; put a token into authorization"));
        }
        let headers = headers.iter().map(|(name, value)| header(name, value)).collect::<Result<_>>()?;
        bearer(token).ok_or_else(|| Error::invalid("config.authorization", "the token is not printable ASCII"))?;
        let client = client(&url, deps).map_err(|error| error.with_field("config.url"))?;
        Ok(Self { url, headers, token: token.clone(), of_caller: false, client })
    }

    /// The same server, shown another token. One that cannot be sent is a token that the server would refuse.
    pub(super) fn with_token(&self, token: &Secret) -> Self {
        Self { token: token.clone(), of_caller: true, ..self.clone() }
    }

    pub(super) fn shown(&self) -> Shown {
        match (self.of_caller, self.token.is_empty() && !self.headers.contains_key(&http::header::AUTHORIZATION)) {
            (true, _) => Shown::Caller,
            (false, false) => Shown::Stack,
            (false, true) => Shown::None,
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// `host` or `host:port`, for messages: never with what is secret in a URL.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Host and port.
    pub(super) fn address(&self) -> (String, Option<u16>) {
        (self.url.host_str().unwrap_or_default().to_owned(), self.url.port_or_known_default())
    }

    pub(super) fn transport(&self) -> StreamableHttpClientTransport<Unnamed> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .custom_headers(self.headers.clone())
            .max_json_response_size(MAX_ANSWER_BYTES)
            .max_sse_event_size(MAX_ANSWER_BYTES);
        let config = if self.token.is_empty() { config } else { config.auth_header(self.token.expose()) };
        StreamableHttpClientTransport::with_client(Unnamed(self.client.clone()), config)
    }
}

/// A client whose failures do not name the address: its query may hold a token, and the library of the protocol logs failures as
/// they are.
#[derive(Clone)]
pub(super) struct Unnamed(reqwest::Client);

type Failure = StreamableHttpError<reqwest::Error>;

fn unnamed(failure: Failure) -> Failure {
    match failure {
        StreamableHttpError::Client(error) => StreamableHttpError::Client(error.without_url()),
        other => other,
    }
}

impl StreamableHttpClient for Unnamed {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.0.post_message(uri, message, session_id, auth_header, headers).await.map_err(unnamed)
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.0.post_message_with_response_limits(uri, message, session_id, auth_header, headers, limits).await.map_err(unnamed)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        self.0.delete_session(uri, session_id, auth_header, headers).await.map_err(unnamed)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxedSseResponse, Failure> {
        self.0.get_stream(uri, session_id, last_event_id, auth_header, headers).await.map_err(unnamed)
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        max: usize,
    ) -> Result<BoxedSseResponse, Failure> {
        self.0.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, headers, max).await.map_err(unnamed)
    }
}

fn header(name: &str, value: &Secret) -> Result<(HeaderName, HeaderValue)> {
    let field = || format!("config.headers.{name}");
    let parsed = HeaderName::try_from(name).map_err(|_| Error::invalid(field(), format!("{name:?} is not the name of a header")))?;
    if RESERVED.contains(&parsed.as_str()) {
        return Err(Error::invalid(field(), format!("{name} is the protocol's own header")));
    }
    let mut value =
        HeaderValue::from_str(value.expose()).map_err(|_| Error::invalid(field(), "the value of this header is not printable"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, header: &str) -> Result<Server> {
        let headers = BTreeMap::from([(header.to_owned(), Secret::new("v"))]);
        Server::new(url, &headers, &Secret::default(), &Deps::new("."))
    }

    #[test]
    fn what_is_no_url_or_header_is_named() {
        let field = |server: Result<Server>| server.err().unwrap().field().unwrap().to_owned();
        for url in ["", "x", "ftp://x", "http://ann:secret@x/mcp"] {
            assert_eq!(field(server(url, "x-a")), "config.url", "{url}");
        }
        for name in ["a b", "accept", "Mcp-Session-Id"] {
            assert_eq!(field(server("http://x", name)), format!("config.headers.{name}"));
        }
    }

    #[test]
    fn a_host_is_named_without_secrets() {
        assert_eq!(server("https://x.org:8443/mcp?key=hunter2", "x-a").unwrap().host(), "x.org:8443");
    }

    /// As the library would log it.
    #[tokio::test]
    async fn a_failure_does_not_name_the_address() {
        let url = "http://127.0.0.1:9/mcp?key=hunter2";
        let client = Unnamed(server(url, "x-a").unwrap().client);
        let failure = client.get_stream(url.into(), None, None, None, HashMap::new()).await.err().unwrap();
        assert!(matches!(failure, StreamableHttpError::Client(_)), "{failure}");
        assert!(!format!("{failure} {failure:?}").contains("hunter2"), "{failure}");
    }
}
