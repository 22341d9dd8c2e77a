//! Where a provider's process listens, and what it is shown: the whole configuration of one that needs no more.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use serde::Deserialize;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::{Code, Context, Error, Result, context::Secret};

/// A server that is gone without a word is noticed after twice this time, also while its answer is waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What a client of `https://` believes and shows, in PEM.
#[derive(Clone, Default)]
pub struct Trust {
    /// Believed beside those that are known everywhere.
    pub authority: Option<Vec<u8>>,
    /// The client's certificate, with what it hangs from, and its private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A lazily connected channel: nothing is contacted before the first call.
///
/// # Errors
/// `InvalidArgument` for something that is no http(s) URL.
pub fn channel(url: &str, connect_timeout: Duration) -> Result<Channel> {
    trusting(url, connect_timeout, Trust::default())
}

/// As [`channel`].
///
/// # Errors
/// As [`channel`], and for a certificate or a key that cannot be used.
pub fn trusting(url: &str, connect_timeout: Duration, trust: Trust) -> Result<Channel> {
    Ok(endpoint(url, connect_timeout, trust)?.connect_lazy())
}

fn endpoint(url: &str, connect_timeout: Duration, trust: Trust) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| Error::invalid("url", format!("{url:?} is not a URL like http://127.0.0.1:9000")).with_source(error))?;
    // HTTP/2's own pings would say more, but servers of the gRPC core close connections that ping often.
    let mut endpoint = endpoint
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE))
        .tcp_keepalive_interval(Some(KEEP_ALIVE / 3))
        .tcp_keepalive_retries(Some(3))
        .connect_timeout(connect_timeout)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW);
    if url.starts_with("https://") {
        let mut tls = ClientTlsConfig::new().with_webpki_roots();
        if let Some(pem) = trust.authority {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        if let Some((cert, key)) = trust.identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(|error| Error::invalid("url", "TLS could not be set up").with_source(error))?;
    } else if !url.starts_with("http://") {
        return Err(Error::invalid("url", format!("{url:?} must begin with http:// or https://")));
    }
    Ok(endpoint)
}

/// Where a provider's process listens.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// For example `http://127.0.0.1:9000`.
    pub url: String,
    /// How long connecting may take. Default 5, at least 1.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_seconds: u32,
    /// Shown as `authorization: Bearer …`: an API key of the other stack, or a token. A caller's own, in
    /// `x-llama-stack-provider-key`, comes before it.
    #[serde(default)]
    pub api_key: Secret,
    /// A PEM file of authorities whose certificates count beside those that are known everywhere.
    #[serde(default)]
    pub ca_certificate: PathBuf,
    /// Whether it is told on whose behalf it is called: principal, tenant and roles. Default: only where it is shown no key.
    #[serde(default)]
    pub pass_identity: Option<bool>,
    /// How long an answer that comes whole may take, whatever its caller says. Greater than 0, at most a day.
    #[serde(default)]
    pub timeout_seconds: Option<f64>,
}

/// Of every provider behind a socket.
pub fn default_connect_timeout() -> u32 {
    5
}

/// What a manifest says under `config.<name>`.
///
/// # Errors
/// `InvalidArgument` on that field for what is not greater than 0, and for more than a day.
pub fn seconds_to_wait(name: &str, seconds: f64) -> Result<Duration> {
    if seconds > 0.0 && seconds <= 86_400.0 {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let message = format!("{name} is {seconds}; it must be greater than 0 and at most 86400 seconds");
    Err(Error::invalid(format!("config.{name}"), message))
}

impl Address {
    /// Shows nothing, and says who asks.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connect_timeout_seconds: default_connect_timeout(),
            api_key: Secret::default(),
            ca_certificate: PathBuf::new(),
            pass_identity: None,
            timeout_seconds: None,
        }
    }

    /// How long an answer may take: `usual`, where the manifest does not say.
    ///
    /// # Errors
    /// `InvalidArgument` on `config.timeout_seconds` for what is no time to wait.
    pub fn timeout(&self, usual: Duration) -> Result<Duration> {
        match self.timeout_seconds {
            None => Ok(usual),
            Some(seconds) => seconds_to_wait("timeout_seconds", seconds),
        }
    }

    /// # Errors
    /// `InvalidArgument` on `config.url` for something that is no http(s) URL, on `config.ca_certificate` for a file that cannot be
    /// read or holds no certificate.
    pub fn channel(&self) -> Result<Channel> {
        Ok(self.endpoint()?.connect_lazy())
    }

    /// What [`Address::channel`] connects to, for those who bring the connections.
    ///
    /// # Errors
    /// As [`Address::channel`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        let timeout = Duration::from_secs(self.connect_timeout_seconds.max(1).into());
        endpoint(&self.url, timeout, Trust { authority: self.authority()?, identity: None }).map_err(|error| error.with_field("config.url"))
    }

    fn authority(&self) -> Result<Option<Vec<u8>>> {
        let file = &self.ca_certificate;
        if file.as_os_str().is_empty() {
            return Ok(None);
        }
        let wrong = |what: String| Error::invalid("config.ca_certificate", format!("{}: {what}", file.display()));
        let pem = std::fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(wrong("holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".into()));
        }
        if !self.url.starts_with("https://") {
            return Err(Error::invalid("config.ca_certificate", format!("stands beside {:?}, which is not https://", self.url)));
        }
        Ok(Some(pem))
    }

    /// What each call shows. `provider_id`: under which callers bring keys of their own.
    pub fn credential(&self, provider_id: &str) -> Credential {
        let api_key = Some(self.api_key.clone()).filter(|key| !key.is_empty());
        let passes_identity = self.pass_identity.unwrap_or(api_key.is_none());
        Credential { provider_id: provider_id.into(), api_key, passes_identity }
    }

    /// For what belongs to somebody, as banks do: who is not told whose it is would take all for one.
    ///
    /// # Errors
    /// `InvalidArgument` on `config.pass_identity` where it is false.
    pub fn must_pass_identity(&self) -> Result<()> {
        if self.pass_identity.unwrap_or(self.api_key.is_empty()) {
            return Ok(());
        }
        let message = "must be true: a provider that is not told on whose behalf it is called would give every tenant the same banks; the \
                       other stack believes it from a key with a role of its server.auth.delegates";
        Err(Error::invalid("config.pass_identity", message))
    }
}

/// What a peer is shown with each call.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    provider_id: String,
    api_key: Option<Secret>,
    passes_identity: bool,
}

impl Credential {
    pub(crate) fn provider_id(&self) -> &str {
        &self.provider_id
    }

    /// The stack's key is for its operator to mend: the caller is neither blamed nor shown what the peer says of it.
    pub(crate) fn refused(&self, cx: &Context, error: Error) -> Error {
        let id = &self.provider_id;
        if cx.provider_key(id).is_some_and(|key| !key.is_empty()) {
            let message = format!("provider {id:?} refused the key that you sent for it");
            return Error::new(Code::Unauthenticated, message).with_reason("invalid_provider_key").with_source(error);
        }
        let mend = if self.api_key.is_some() { "check its api_key" } else { "it needs an api_key, and has none" };
        let message = format!("provider {id:?} wants to know who calls, and refused this stack: {mend}");
        Error::failed_precondition(message).with_reason("upstream_unauthorized").with_source(error)
    }

    /// The context that goes out.
    pub(crate) fn shown<'a>(&self, cx: &'a Context) -> Cow<'a, Context> {
        let own = cx.provider_key(&self.provider_id).filter(|key| !key.is_empty());
        let bearer = own.or(self.api_key.as_ref());
        if bearer.is_none() && self.passes_identity {
            return Cow::Borrowed(cx);
        }
        let shown = cx.clone();
        let shown = if self.passes_identity { shown } else { shown.nameless() };
        Cow::Owned(match bearer {
            Some(bearer) => shown.with_bearer(bearer.clone()),
            None => shown,
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    fn sent(config: &str, cx: &Context) -> MetadataMap {
        let address: Address = serde_json::from_str(config).unwrap();
        let mut metadata = MetadataMap::new();
        address.credential("far").shown(cx).write_metadata(&mut metadata);
        metadata
    }

    #[tokio::test]
    async fn an_address_is_a_url_and_how_long_to_try_it() {
        let address: Address = serde_json::from_str(r#"{"url":"http://127.0.0.1:9000"}"#).unwrap();
        assert_eq!(address.connect_timeout_seconds, 5);
        assert!(address.channel().is_ok());
        for url in ["ftp://x", "127.0.0.1:9000", ""] {
            let error = Address { connect_timeout_seconds: 0, ..Address::new(url) }.channel().err().unwrap();
            assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("config.url")), "{url}");
        }
    }

    #[test]
    fn a_wrong_authority_is_refused_by_its_field() {
        let other = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for path in ["/none/ca.pem", other] {
            let error = Address { ca_certificate: path.into(), ..Address::new("https://a") }.channel().err().unwrap();
            assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("config.ca_certificate")));
        }
    }

    #[test]
    fn a_time_to_wait_is_more_than_none_and_a_day_at_most() {
        let wait = |seconds: Option<f64>| Address { timeout_seconds: seconds, ..Address::new("http://a") }.timeout(Duration::from_secs(7));
        assert_eq!((wait(None).unwrap(), wait(Some(0.5)).unwrap()), (Duration::from_secs(7), Duration::from_millis(500)));
        for seconds in [0.0, -1.0, 1e9, f64::NAN, f64::INFINITY] {
            assert_eq!(wait(Some(seconds)).unwrap_err().field(), Some("config.timeout_seconds"), "{seconds}");
        }
    }

    fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
        metadata.get(name).map(|value| value.to_str().unwrap())
    }

    /// Who is called under a key learns who asks only where the manifest says so.
    #[test]
    fn the_callers_identity_goes_out_only_where_it_is_to() {
        let cx = Context::test("acme");
        let plain = sent(r#"{"url":"http://a"}"#, &cx);
        assert_eq!((text(&plain, "x-llama-stack-tenant"), text(&plain, "authorization")), (Some("acme"), None));
        let keyed = sent(r#"{"url":"http://a","api_key":"lsk_1"}"#, &cx);
        assert_eq!(text(&keyed, "authorization"), Some("Bearer lsk_1"));
        for name in ["x-llama-stack-tenant", "x-llama-stack-principal", "x-llama-stack-roles"] {
            assert_eq!(text(&keyed, name), None, "{name}");
        }
        let both = sent(r#"{"url":"http://a","api_key":"lsk_1","pass_identity":true}"#, &cx);
        assert_eq!((text(&both, "authorization"), text(&both, "x-llama-stack-principal")), (Some("Bearer lsk_1"), Some("tester")));
        assert_eq!(text(&sent(r#"{"url":"http://a","pass_identity":false}"#, &cx), "x-llama-stack-tenant"), None);
    }

    #[test]
    fn a_callers_own_key_comes_before_the_manifests() {
        let mut headers = MetadataMap::new();
        headers.insert("x-llama-stack-provider-key", "far=lsk_own".parse().unwrap());
        let cx = Context::from_metadata(&headers).unwrap();
        let metadata = sent(r#"{"url":"http://a","api_key":"lsk_1"}"#, &cx);
        assert_eq!(text(&metadata, "authorization"), Some("Bearer lsk_own"));
    }

    #[test]
    fn what_belongs_to_tenants_is_never_asked_for_without_them() {
        let address: Address = serde_json::from_str(r#"{"url":"http://a","api_key":"lsk_1"}"#).unwrap();
        assert_eq!(address.must_pass_identity().unwrap_err().field(), Some("config.pass_identity"));
        assert!(Address::new("http://a").must_pass_identity().is_ok());
    }
}
