//! One server over HTTP: what a request carries, how long it may take, and when it is tried again.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use llama_stack_core::{Code, Context, Error, Result, context::Secret};
use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;
use tokio::time::sleep;
use url::Url;

/// An answer of moderations is a few kilobytes.
const MAX_BYTES: usize = 4 << 20;
/// Who is told to come back later than this is better told so at once.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// An upstream's words are passed on up to here.
const MAX_WORDS: usize = 500;

pub(super) struct Upstream {
    provider: String,
    host: String,
    endpoint: Url,
    key: Option<HeaderValue>,
    client: Client,
    retries: u32,
}

/// Whose key the server was shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    None,
    Stack,
    Caller,
}

impl Upstream {
    pub(super) fn new(provider: &str, endpoint: Url, key: Secret, timeout: Duration, retries: u32) -> Result<Self> {
        let host = endpoint.host_str().unwrap_or("?").to_owned();
        let mut client = Client::builder()
            .user_agent(concat!("llama-stack/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true)
            .timeout(timeout)
            .pool_idle_timeout(Duration::from_secs(4))
            // A redirect would take the key somewhere else.
            .redirect(Policy::none());
        if endpoint.scheme() == "http" {
            // Reading the machine's certificates takes longer than all the rest of starting.
            client = client.tls_certs_only([]);
        }
        if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| Error::internal("the HTTP client could not be set up").with_source(error))?;
        let host = endpoint.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let bad = || Error::invalid("config.api_key", "the key is not printable ASCII");
        let key = if key.is_empty() { None } else { Some(bearer(&key).ok_or_else(bad)?) };
        Ok(Self { provider: provider.to_owned(), host, endpoint, key, client, retries })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The body of the answer. Tries again what has certainly not been answered: no connection, or "not now".
    pub(super) async fn ask(&self, cx: &Context, body: &Value) -> Result<Bytes> {
        let mut attempt = 0;
        loop {
            let (error, again) = match self.once(cx, body).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let backoff = Duration::from_millis(250).saturating_mul(1 << attempt.min(5)).mul_f64(rand::random_range(0.5..=1.0));
            let wait = error.retry_after().unwrap_or(backoff);
            if !again || attempt >= self.retries || wait > MAX_WAIT {
                return Err(error);
            }
            tracing::debug!(provider = self.provider, attempt, error = error.message(), "trying again");
            sleep(wait).await;
            attempt += 1;
        }
    }

    /// One attempt. A failure says whether another is safe.
    async fn once(&self, cx: &Context, body: &Value) -> Result<Bytes, (Error, bool)> {
        let callers = cx.provider_key(&self.provider).filter(|key| !key.is_empty());
        let (key, shown) = match callers {
            Some(key) => {
                let bad = || Error::invalid("x-llama-stack-provider-key", "the provider key is not printable ASCII");
                (Some(bearer(key).ok_or_else(|| (bad(), false))?), Key::Caller)
            }
            None => (self.key.clone(), if self.key.is_some() { Key::Stack } else { Key::None }),
        };
        let mut request = self.client.post(self.endpoint.clone()).json(body);
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, key);
        }
        for (name, value) in [("x-request-id", cx.request_id()), ("traceparent", cx.trace())] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                request = request.header(name, value);
            }
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let (status, after) = (response.status(), retry_after(&response));
        let body = self.body(response).await.map_err(|error| (error, false))?;
        if status.is_success() {
            return Ok(body);
        }
        let error = self.refusal(status, &body, shown);
        let error = if let Some(after) = after { error.with_retry_after(after) } else { error };
        Err((error, matches!(status.as_u16(), 429 | 502 | 503)))
    }

    async fn body(&self, mut response: Response) -> Result<Bytes> {
        let mut body = BytesMut::new();
        let broken = |error: reqwest::Error| {
            let message = format!("provider {:?}: {} broke off before its answer was done", self.provider, self.host);
            Error::unavailable(message).with_reason("stream_broken").with_source(error.without_url())
        };
        while let Some(piece) = response.chunk().await.map_err(broken)? {
            if body.len() + piece.len() > MAX_BYTES {
                return Err(self.malformed("an answer that is far too long"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn unreachable(&self, error: reqwest::Error) -> (Error, bool) {
        let unsent = error.is_connect();
        let (code, how, reason) = match (error.is_connect(), error.is_timeout()) {
            (true, true) => (Code::Unavailable, "did not accept a connection in time", "upstream_unreachable"),
            (true, false) => (Code::Unavailable, "cannot be reached", "upstream_unreachable"),
            (false, true) => (Code::DeadlineExceeded, "did not answer in time", "upstream_timeout"),
            (false, false) => (Code::Unavailable, "closed the connection before it answered", "upstream_unreachable"),
        };
        let message = format!("provider {:?}: {} {how}", self.provider, self.host);
        (Error::new(code, message).with_reason(reason).with_source(error.without_url()), unsent)
    }

    /// An answer that is not what the API promises.
    pub(super) fn malformed(&self, what: &str) -> Error {
        let message = format!("provider {:?}: {} sent something that is not of the API: {what}", self.provider, self.host);
        Error::unavailable(message).with_reason("upstream_malformed")
    }

    fn refusal(&self, status: StatusCode, body: &[u8], key: Key) -> Error {
        let (provider, host) = (&self.provider, &self.host);
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        let said: String = said["error"]["message"].as_str().unwrap_or_default().chars().take(MAX_WORDS).collect();
        match status.as_u16() {
            401 | 403 if key == Key::Caller => {
                Error::new(Code::Unauthenticated, format!("the upstream refused the key that you sent for provider {provider:?} ({host})"))
                    .with_reason("invalid_provider_key")
            }
            401 | 403 => {
                tracing::warn!(provider, host, status = status.as_u16(), said, "upstream refused this stack's key");
                let mend = if key == Key::Stack { "check its api_key" } else { "it needs an api_key, and has none" };
                Error::failed_precondition(format!("the upstream refused the key of provider {provider:?} ({host}): {mend}"))
                    .with_reason("upstream_unauthorized")
            }
            300..=399 => {
                let message = format!("provider {provider:?}: {host} answers with a redirect (status {}); check its url", status.as_u16());
                Error::failed_precondition(message).with_reason("upstream_redirect")
            }
            404 if said.is_empty() => {
                let message = format!("provider {provider:?}: {host} has no moderations, or its url is wrong (status 404)");
                Error::new(Code::Unimplemented, message).with_reason("upstream_lacks_call")
            }
            status => {
                // The table's other server errors are this stack's own defects; another server's are its unavailability.
                let code = if status >= 500 && status != 504 { Code::Unavailable } else { Code::from_http_status(status) };
                let what = if said.is_empty() { format!("status {status}") } else { said };
                Error::new(code, format!("provider {provider:?}: {what}")).with_reason("upstream_error")
            }
        }
    }
}

fn bearer(key: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// In seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: f64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
