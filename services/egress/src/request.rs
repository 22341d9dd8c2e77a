use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use llama_stack_core::{Code, Error, Result, context::Secret};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

/// Headers that say how a message is carried, or to whom: the client's own business.
const OWN: [HeaderName; 8] = [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, ACCEPT_ENCODING];

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// `POST` of a JSON document.
    ///
    /// # Errors
    /// `Internal` where `body` has no JSON form.
    pub fn post_json(url: Url, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|error| Error::internal("the request has no JSON form").with_source(error))?;
        Ok(Self::new(Method::POST, url).with_body("application/json", body))
    }

    #[must_use]
    pub fn with_body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body.into();
        self
    }

    /// Sends a header; it goes no further than to this origin, unless it says what is accepted.
    ///
    /// # Errors
    /// `InvalidArgument` on `headers.<name>`: no name, a value that is not printable ASCII, or a header that the client sets itself.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self> {
        let wrong = |what: String| Error::invalid(format!("headers.{name}"), what);
        let key = HeaderName::try_from(name).map_err(|_| wrong(format!("{name:?} is not the name of a header")))?;
        if OWN.contains(&key) || key.as_str().starts_with("proxy-") {
            return Err(wrong(format!("the header {key} is set by the client itself; leave it out")));
        }
        let value = HeaderValue::from_str(value).map_err(|_| wrong(format!("the value of the header {key} is not printable ASCII")))?;
        self.headers.insert(key, value);
        Ok(self)
    }

    /// Sends a key under `name`; it is not logged.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that is not printable ASCII.
    pub fn with_key(mut self, name: HeaderName, key: &Secret) -> Result<Self> {
        self.headers.insert(name, sensitive(key.expose())?);
        Ok(self)
    }

    /// As [`Request::with_key`], as bearer token.
    pub fn with_bearer(mut self, key: &Secret) -> Result<Self> {
        self.headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {}", key.expose()))?);
        Ok(self)
    }
}

fn sensitive(key: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(key).map_err(|_| Error::invalid("api_key", "the key is not printable ASCII"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What came back, of whatever status.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Where it came from at last, without user and password.
    pub url: Url,
    pub headers: HeaderMap,
    /// Unpacked.
    pub body: Bytes,
    /// Whether `body` is all of it: it ends where the limit was reached.
    pub complete: bool,
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// # Errors
    /// `TooLarge` for a body that was cut · `Unavailable` (`upstream_malformed`) for one that is not this JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let host = self.url.host_str().unwrap_or_default();
        if !self.complete {
            return Err(Error::new(Code::TooLarge, format!("{host} answered with more than {} bytes", self.body.len())));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::unavailable(format!("{host} answered with something that is not of its API: {error}")).with_reason("upstream_malformed")
        })
    }
}
