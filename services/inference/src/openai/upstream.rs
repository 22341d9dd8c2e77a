//! One server over HTTP: its pooled connections, what every request carries, time-outs, and retries where they are safe.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Body, Certificate, Client, Method, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use llama_stack_core::{Code, Context, Error, Result, context::Secret, grpc::MAX_MESSAGE_BYTES};

use super::{
    Config, Timeouts,
    failure::{Key, Name, UNTRUSTED},
    tls,
};

/// Longest wait before a retry: who is told to come back later than this is better told so at once.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// An error's body counts up to here, and no longer than this is waited for it.
const MAX_ERROR_BYTES: usize = 64 << 10;
const ERROR_WITHIN: Duration = Duration::from_secs(5);
/// uvicorn, under vLLM and many others, closes an idle connection after 5 s; a request that crosses with that is lost.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
/// A handshake over TLS costs more, and the proxies that end it wait longer: nginx 75 s, most load balancers 60 s.
const IDLE_TLS: Duration = Duration::from_secs(50);

pub(super) struct Upstream {
    pub(super) name: Name,
    client: Client,
    base: Url,
    headers: HeaderMap,
    key: Option<HeaderValue>,
    timeouts: Timeouts,
    retries: u32,
}

/// Until when a call may go on, and why not longer.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    at: Instant,
    /// The caller's deadline rather than the configured total.
    caller: bool,
}

impl Upstream {
    /// `authorities` are those of the configuration's file.
    pub(super) fn new(id: String, base: Url, config: &Config, authorities: Vec<Certificate>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &config.headers {
            let field = || format!("config.headers.{name}");
            let name = HeaderName::try_from(name).map_err(|_| Error::invalid(field(), format!("{name:?} is not the name of a header")))?;
            let value = secret(value.expose()).ok_or_else(|| Error::invalid(field(), "the value of this header is not printable ASCII"))?;
            headers.insert(name, value);
        }
        let key = match config.api_key.expose() {
            "" => None,
            key => Some(bearer(key).ok_or_else(|| Error::invalid("config.api_key", "the key is not printable ASCII"))?),
        };
        let client = client(&base, config, authorities)?;
        let name = Name { id, host: super::host_of(&base) };
        Ok(Self { name, client, base, headers, key, timeouts: config.timeouts, retries: config.retries })
    }

    /// `base/path`, with the query that the base may have.
    pub(super) fn endpoint(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url
    }

    pub(super) fn limit(&self, cx: &Context) -> Limit {
        let total = Instant::now() + self.timeouts.total();
        match cx.deadline().map(Instant::from) {
            Some(at) if at < total => Limit { at, caller: true },
            _ => Limit { at: total, caller: false },
        }
    }

    /// A whole answer to a request.
    pub(super) async fn call(&self, cx: &Context, method: Method, url: &Url, body: Bytes) -> Result<Bytes> {
        let limit = self.limit(cx);
        let response = self.send(cx, method, url, body, limit, self.timeouts.total()).await?;
        self.whole(response, limit).await
    }

    /// An answer whose body has yet to be read.
    pub(super) async fn open(&self, cx: &Context, url: &Url, body: Bytes, limit: Limit) -> Result<Response> {
        self.send(cx, Method::POST, url, body, limit, self.timeouts.first_byte()).await
    }

    /// Tries again, with longer and longer waits, what has certainly not been answered: no connection, or "not now".
    async fn send(&self, cx: &Context, method: Method, url: &Url, body: Bytes, limit: Limit, patience: Duration) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let (error, again) = match self.once(cx, method.clone(), url, body.clone(), limit, patience).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => self.refusal(cx, response).await,
                Err(failed) => failed,
            };
            let wait = error.retry_after().unwrap_or_else(|| backoff(attempt));
            if !again || attempt >= self.retries || wait > MAX_WAIT || Instant::now() + wait >= limit.at {
                return Err(error);
            }
            tracing::debug!(provider = self.name.id, attempt, wait_ms = wait.as_millis(), error = error.message(), "trying again");
            sleep(wait).await;
            attempt += 1;
        }
    }

    /// One attempt. A failure says whether another is safe.
    async fn once(
        &self,
        cx: &Context,
        method: Method,
        url: &Url,
        body: Bytes,
        limit: Limit,
        patience: Duration,
    ) -> Result<Response, (Error, bool)> {
        let mut request = Request::new(method, url.clone());
        self.put_headers(cx, request.headers_mut()).map_err(|error| (error, false))?;
        if !body.is_empty() {
            *request.body_mut() = Some(Body::from(body));
        }
        match self.in_time(self.client.execute(request), limit, patience).await.map_err(|error| (error, false))? {
            Ok(response) => Ok(response),
            Err(failed) => {
                let unsent = failed.is_connect();
                let error = self.name.unreachable(failed);
                // Who is not trusted now is not trusted in a second either.
                let again = unsent && error.reason() != Some(UNTRUSTED);
                Err((error, again))
            }
        }
    }

    fn put_headers(&self, cx: &Context, headers: &mut HeaderMap) -> Result<()> {
        headers.clone_from(&self.headers);
        match self.callers_key(cx) {
            Some(key) => {
                let bad = || Error::invalid("x-llama-stack-provider-key", "the provider key is not printable ASCII");
                headers.insert(AUTHORIZATION, bearer(key.expose()).ok_or_else(bad)?);
            }
            None => {
                if let Some(key) = &self.key {
                    headers.insert(AUTHORIZATION, key.clone());
                }
            }
        }
        for (name, value) in [("x-request-id", cx.request_id()), ("traceparent", cx.trace())] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        Ok(())
    }

    fn callers_key<'a>(&self, cx: &'a Context) -> Option<&'a Secret> {
        cx.provider_key(&self.name.id).filter(|key| !key.is_empty())
    }

    /// What a status other than success means, and whether it says "not now".
    async fn refusal(&self, cx: &Context, mut response: Response) -> (Error, bool) {
        let key = match (self.callers_key(cx), &self.key) {
            (Some(_), _) => Key::Caller,
            (None, Some(_)) => Key::Stack,
            (None, None) => Key::None,
        };
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let read = async {
            let mut body = BytesMut::new();
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ERROR_BYTES {
                    break;
                }
            }
            body
        };
        let body = tokio::time::timeout(ERROR_WITHIN, read).await.unwrap_or_default();
        let error = self.name.status(status, &headers, &body, key);
        // A quota that is used up does not come back within seconds.
        let again = matches!(status, 429 | 502 | 503) && error.reason() != Some("insufficient_quota");
        (error, again)
    }

    /// Waits no longer than `patience`, and not beyond `limit`.
    async fn in_time<T>(&self, work: impl Future<Output = T>, limit: Limit, patience: Duration) -> Result<T> {
        let until = Instant::now() + patience;
        let done = timeout_at(until.min(limit.at), work).await;
        done.map_err(|_| {
            if until < limit.at {
                self.name.timeout(patience)
            } else if limit.caller {
                Error::new(Code::DeadlineExceeded, "the deadline passed before the call was done")
            } else {
                self.name.too_long(self.timeouts.total())
            }
        })
    }

    /// The next bytes of a body, `None` at its end. The first may take longer than the others: a prompt is being read.
    pub(super) async fn chunk(&self, response: &mut Response, limit: Limit, first: bool) -> Result<Option<Bytes>> {
        let patience = if first { self.timeouts.first_byte() } else { self.timeouts.idle() };
        let chunk = self.in_time(response.chunk(), limit, patience).await?;
        chunk.map_err(|error| self.name.broken().with_source(error.without_url()))
    }

    /// A whole body; without a copy where it came in one piece.
    pub(super) async fn whole(&self, mut response: Response, limit: Limit) -> Result<Bytes> {
        let first = self.chunk(&mut response, limit, true).await?.unwrap_or_default();
        let Some(second) = self.chunk(&mut response, limit, false).await? else { return Ok(first) };
        let mut body = BytesMut::from(first);
        let mut more = Some(second);
        while let Some(piece) = more {
            if body.len() + piece.len() > MAX_MESSAGE_BYTES {
                return Err(self.name.malformed(format_args!("an answer of more than {} MiB", MAX_MESSAGE_BYTES >> 20)));
            }
            body.extend_from_slice(&piece);
            more = self.chunk(&mut response, limit, false).await?;
        }
        Ok(body.freeze())
    }
}

fn client(base: &Url, config: &Config, authorities: Vec<Certificate>) -> Result<Client> {
    let private = !authorities.is_empty();
    let plain = base.scheme() == "http";
    let mut builder = Client::builder()
        .user_agent(concat!("llama-stack/", env!("CARGO_PKG_VERSION")))
        .tcp_nodelay(true)
        .connect_timeout(config.timeouts.connect())
        .pool_idle_timeout(if plain { IDLE_PLAIN } else { IDLE_TLS })
        // A redirect would take the key somewhere else.
        .redirect(Policy::none());
    // Where none is needed: reading the machine's certificates takes longer than all the rest of starting.
    builder = if plain { builder.tls_certs_only(authorities) } else { builder.tls_certs_merge(authorities) };
    let here = base.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]");
    if here {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| {
        let what = if private { tls::not_one(&config.ca_certificate) } else { Error::internal("the HTTP client could not be set up") };
        what.with_source(error)
    })
}

/// A quarter of a second and its doubles, each shortened by chance to between half and all of itself.
fn backoff(attempt: u32) -> Duration {
    let full = Duration::from_millis(250).saturating_mul(1 << attempt.min(5));
    full.mul_f64(rand::random_range(0.5..=1.0))
}

fn bearer(key: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {key}"))
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
