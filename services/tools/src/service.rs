//! A web service that a tool asks: where it is, the key for it, and words for its failures.

use llama_stack_core::{Code, Context, Deps, Error, Result, context::Secret};
use llama_stack_egress::{Client, Limits, Request, Response};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use crate::{ToolFailure, timeout};

/// A service's own words are passed on up to here.
const MAX_SAID: usize = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// A caller's own key for this provider goes before it. Default: none.
    api_key: Secret,
    /// The base of the service. Default: its maker's.
    url: String,
    /// How long a call may take. Default 20.
    timeout_seconds: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { api_key: Secret::default(), url: String::new(), timeout_seconds: 20.0 }
    }
}

pub(crate) struct Service {
    /// As people call it.
    pub(crate) name: &'static str,
    provider: String,
    base: Url,
    key: Secret,
    client: Client,
}

impl Service {
    /// `default` is where the maker runs it; empty where everyone runs their own.
    ///
    /// # Errors
    /// `InvalidArgument` on `config.url` · `PermissionDenied` where `egress.deny` names it.
    pub(crate) fn new(name: &'static str, default: &str, config: Config, deps: Deps) -> Result<Self> {
        let url = if config.url.is_empty() { default } else { &config.url };
        if url.is_empty() {
            return Err(Error::invalid("config.url", format!("missing field: the address of your {name}")));
        }
        let base: Url = url.parse().map_err(|error| Error::invalid("config.url", format!("{url:?} is no URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(Error::invalid("config.url", format!("{url:?}: the URL must begin with http:// or https://")));
        }
        let limits = Limits { total: timeout::seconds(config.timeout_seconds), max_bytes: 2 << 20, ..Limits::default() };
        // Whoever writes a server's address into the manifest allows it by that.
        let client = Client::new(deps.egress.with_server(&base), limits);
        client.permits(&base).map_err(|error| error.with_field("config.url"))?;
        Ok(Self { name, provider: deps.provider_id, base, key: config.api_key, client })
    }

    /// `base/path`.
    pub(crate) fn endpoint(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url
    }

    /// The caller's own key, else the configured one.
    ///
    /// # Errors
    /// `FailedPrecondition` (`provider_key_missing`) where there is neither; says where to put one.
    pub(crate) fn key<'a>(&'a self, cx: &'a Context) -> Result<&'a Secret> {
        let callers = cx.provider_key(&self.provider).filter(|key| !key.is_empty());
        callers.or((!self.key.is_empty()).then_some(&self.key)).ok_or_else(|| {
            let (name, provider) = (self.name, &self.provider);
            let message = format!(
                "provider {provider:?}: {name} needs a key: set api_key in its config, or send one as x-llama-stack-provider-key: {provider}=KEY"
            );
            Error::failed_precondition(message).with_reason("provider_key_missing")
        })
    }

    /// A good answer, read as JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, cx: &Context, request: Request) -> Result<T, ToolFailure> {
        let response = self.send(cx, request).await?;
        if !response.is_success() {
            return Err(self.refusal(cx, &response));
        }
        response.json().map_err(failure)
    }

    /// Whatever comes back.
    pub(crate) async fn send(&self, cx: &Context, request: Request) -> Result<Response, ToolFailure> {
        self.client.send(cx, request).await.map_err(failure)
    }

    /// What a status other than success means to a model.
    pub(crate) fn refusal(&self, cx: &Context, response: &Response) -> ToolFailure {
        let (name, provider, status) = (self.name, &self.provider, response.status);
        tracing::warn!(provider, status, "{name} refused a request");
        let text = match status {
            401 | 403 if cx.provider_key(provider).is_some_and(|key| !key.is_empty()) => {
                format!("{name} refused the caller's own key for provider {provider:?} (status {status}); with this key it cannot be used")
            }
            401 | 403 => format!(
                "{name} refused the key of this stack (status {status}); its operator has to mend api_key of provider {provider:?}, so do not try again"
            ),
            402 | 429 | 432 | 433 => {
                let after = response.header(http::header::RETRY_AFTER).and_then(|after| after.parse::<u32>().ok());
                let after = after.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds} seconds"));
                format!("{name} takes no more requests now (status {status}: its limit is reached); try again {after}, or go on without it")
            }
            500.. => format!("{name} has a failure of its own (status {status}); try again later, or go on without it"),
            _ => {
                let said: String = String::from_utf8_lossy(&response.body).chars().take(MAX_SAID).collect();
                format!("{name} did not take the request (status {status}): {}", said.trim())
            }
        };
        ToolFailure::Told(text)
    }
}

/// What the network did is the tool's failure, so the model is told; what this process or the caller's deadline did is not.
pub(crate) fn failure(error: Error) -> ToolFailure {
    let ours = match error.code() {
        Code::Internal | Code::Cancelled => true,
        Code::DeadlineExceeded => error.reason().is_none(),
        _ => false,
    };
    if ours { ToolFailure::Platform(error) } else { ToolFailure::Told(error.message().to_owned()) }
}
