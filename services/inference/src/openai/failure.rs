//! What an upstream's failures are to our callers.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use llama_stack_core::{Code, Error};

use super::tls;

/// An upstream's words are passed on up to here.
const MAX_MESSAGE: usize = 1_000;

/// The reason where an upstream's certificate is not trusted.
pub(super) const UNTRUSTED: &str = "upstream_untrusted";

/// How an upstream is called in errors: never with what is secret in its URL.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) id: String,
    /// `host` or `host:port`.
    pub(super) host: String,
}

/// Whose key the upstream was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    None,
    Stack,
    Caller,
}

impl Name {
    /// No connection, or one that ended before there was an answer.
    pub(super) fn unreachable(&self, error: reqwest::Error) -> Error {
        if let Some(why) = tls::distrust(&error) {
            let message = format!("provider {:?}: the certificate of {} is not trusted: {why}", self.id, self.host);
            return Error::unavailable(message).with_reason(UNTRUSTED).with_source(error.without_url());
        }
        let how = match (error.is_connect(), error.is_timeout()) {
            (true, true) => "did not accept a connection in time",
            (true, false) => "cannot be reached",
            _ => "closed the connection before it answered",
        };
        let message = format!("provider {:?}: {} {how}", self.id, self.host);
        Error::unavailable(message).with_reason("upstream_unreachable").with_source(error.without_url())
    }

    /// Connected, but silent.
    pub(super) fn timeout(&self, waited: Duration) -> Error {
        let message = format!("provider {:?}: {} sent nothing for {} s", self.id, self.host, waited.as_secs_f32());
        Error::new(Code::DeadlineExceeded, message).with_reason("upstream_timeout")
    }

    /// Longer than a whole call may take.
    pub(super) fn too_long(&self, total: Duration) -> Error {
        let message = format!("provider {:?}: {} was not done within {} s", self.id, self.host, total.as_secs_f32());
        Error::new(Code::DeadlineExceeded, message).with_reason("upstream_timeout")
    }

    /// An answer that ended before its end.
    pub(super) fn broken(&self) -> Error {
        let message = format!("provider {:?}: {} broke off before its answer was done", self.id, self.host);
        Error::unavailable(message).with_reason("stream_broken")
    }

    /// An answer that is not what the API promises.
    pub(super) fn malformed(&self, what: impl std::fmt::Display) -> Error {
        let message = format!("provider {:?}: {} sent something that is not of the API: {what}", self.id, self.host);
        Error::unavailable(message).with_reason("upstream_malformed")
    }

    /// A feature that this kind of server does not have.
    pub(super) fn lacks(&self, field: &str, what: &str) -> Error {
        let message = format!("provider {:?} has no {what}; leave out {field}", self.id);
        Error::new(Code::Unimplemented, message).with_reason("unsupported_parameter").with_field(field)
    }

    /// An answer with a status that is not success.
    pub(super) fn status(&self, status: u16, headers: &HeaderMap, body: &[u8], key: Key) -> Error {
        let said = Said::read(body);
        let error = match status {
            401 | 403 => self.refused(status, key, &said),
            404 => self.absent(said),
            300..=399 => {
                let message = format!("provider {:?}: {} answers with a redirect (status {status}); check its url", self.id, self.host);
                Error::failed_precondition(message).with_reason("upstream_redirect")
            }
            _ => self.said(status, said),
        };
        match retry_after(headers) {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }

    /// An error object within a stream that began well.
    pub(super) fn in_stream(&self, data: &[u8]) -> Error {
        let said = Said::read(data);
        self.said(said.status(), said)
    }

    fn said(&self, status: u16, said: Said) -> Error {
        let code = match status {
            // The table's other server errors are this stack's own defects; another server's are its unavailability.
            502 | 503 | 505.. => Code::Unavailable,
            status => Code::from_http_status(status),
        };
        let what = if said.message.is_empty() { format!("status {status}") } else { said.message };
        let mut error = Error::new(code, format!("provider {:?}: {what}", self.id));
        let too_long = ["maximum context length", "context size", "context window"].iter().any(|words| what.contains(words));
        error = match said.code {
            _ if code == Code::InvalidArgument && too_long => error.with_reason("context_length_exceeded"),
            Some(reason) => error.with_reason(reason),
            None => error.with_reason("upstream_error"),
        };
        match said.param {
            Some(param) if code == Code::InvalidArgument => error.with_field(param),
            _ => error,
        }
    }

    /// The stack's key is for its operator to mend: the caller is neither blamed nor shown what the upstream says of it.
    fn refused(&self, status: u16, key: Key, said: &Said) -> Error {
        let Name { id, host } = self;
        match key {
            Key::Caller if status == 401 => {
                Error::new(Code::Unauthenticated, format!("the upstream refused the key that you sent for provider {id:?} ({host})"))
                    .with_reason("invalid_provider_key")
            }
            Key::Caller => {
                let message = format!("the upstream does not allow this to the key that you sent for provider {id:?}: {}", said.message);
                Error::new(Code::PermissionDenied, message).with_reason("provider_key_not_allowed")
            }
            Key::Stack | Key::None => {
                tracing::warn!(provider = id, host, status, said = said.message, "upstream refused this stack's key");
                let mend = if key == Key::Stack { "check its api_key" } else { "it needs an api_key, and has none" };
                let message = format!("the upstream refused the key of provider {id:?} ({host}): {mend}");
                Error::failed_precondition(message).with_reason("upstream_unauthorized")
            }
        }
    }

    /// A model that is not there, or a whole part of the API.
    fn absent(&self, said: Said) -> Error {
        if said.message.contains("model") || said.code.as_deref().is_some_and(|code| code.contains("model")) {
            let message = format!("provider {:?}: {}", self.id, said.message);
            return Error::not_found(message).with_reason("model_not_found").with_field("model");
        }
        let message = format!("provider {:?}: {} does not have this call, or its url is wrong (status 404)", self.id, self.host);
        Error::new(Code::Unimplemented, message).with_reason("upstream_lacks_call")
    }
}

/// What an error body says, in any of the forms in use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    message: String,
    kind: String,
    /// A word, for example `context_length_exceeded`.
    code: Option<String>,
    /// A number where the code should be is an HTTP status.
    number: Option<u16>,
    param: Option<String>,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        // Gemini wraps the object in a list.
        let value = value.get(0).unwrap_or(&value);
        // OpenAI's `error`; Ollama's and TGI's is only a text; old vLLM and Mistral have no wrapper; FastAPI says `detail`.
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let text = |name: &str| error[name].as_str().filter(|text| !text.is_empty());
        let message = error.as_str().or_else(|| text("message")).or_else(|| text("detail")).or_else(|| error["detail"][0]["msg"].as_str());
        let number = error["code"].as_u64().or_else(|| error["status_code"].as_u64()).or_else(|| text("code")?.parse().ok());
        Self {
            message: bounded(message.unwrap_or_default()),
            kind: text("type").or_else(|| value["error_type"].as_str()).unwrap_or_default().to_owned(),
            code: text("code").filter(|code| code.len() <= 64 && !code.bytes().all(|b| b.is_ascii_digit())).map(Into::into),
            number: number.and_then(|number| u16::try_from(number).ok()),
            param: text("param").map(Into::into),
        }
    }

    /// The status that it would have had as an answer of its own.
    fn status(&self) -> u16 {
        match (self.number, self.kind.as_str(), self.code.as_deref()) {
            (Some(status @ 400..600), ..) => status,
            (_, "invalid_request_error" | "BadRequestError" | "validation", _) => 400,
            (_, "rate_limit_error" | "insufficient_quota", _) | (_, _, Some("rate_limit_exceeded")) => 429,
            _ => 503,
        }
    }
}

/// True for a body that has an error's words.
pub(super) fn tells(body: &[u8]) -> bool {
    !Said::read(body).message.is_empty()
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `Retry-After` in seconds or as a date, or OpenAI's `retry-after-ms`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let seconds = |value: f64| Duration::try_from_secs_f64(value).ok();
    if let Some(after) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()).and_then(|ms| seconds(ms / 1_000.0)) {
        return Some(after);
    }
    let text = text("retry-after")?;
    if let Ok(value) = text.parse::<f64>() {
        return seconds(value);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}
