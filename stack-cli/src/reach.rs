//! How a stack is reached, and what to say where it does not answer.

use std::{error::Error as _, path::Path, time::Duration};

use llama_stack_core::{
    Code, Error, Result,
    grpc::{Trust, trusting},
};
use tonic::transport::Channel;

use crate::{caller, named};

/// A file of authorities in PEM, believed beside those that are known everywhere.
const AUTHORITY: &str = "LLAMA_STACK_CA";
/// The certificate that is shown to a stack which asks for one, and its key, in PEM.
const CERTIFICATE: &str = "LLAMA_STACK_CLIENT_CERT";
const KEY: &str = "LLAMA_STACK_CLIENT_KEY";

/// A channel to a stack. It connects with the first call.
pub(crate) fn connect(server: &str) -> Result<Channel> {
    within(server, Duration::from_secs(5))
}

/// As [`connect`], for who will not wait as long.
pub(crate) fn within(server: &str, timeout: Duration) -> Result<Channel> {
    let trust = if server.starts_with("https://") { trust()? } else { Trust::default() };
    trusting(server, timeout, trust)
}

/// What the environment says.
fn trust() -> Result<Trust> {
    let identity = match (pem(CERTIFICATE, "CERTIFICATE")?, pem(KEY, "PRIVATE KEY")?) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => return Err(Error::invalid("server", format!("{CERTIFICATE} and {KEY} go together, and one of them is not set"))),
    };
    Ok(Trust { authority: pem(AUTHORITY, "CERTIFICATE")?, identity })
}

fn pem(variable: &str, what: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = std::env::var_os(variable).filter(|file| !file.is_empty()) else { return Ok(None) };
    let file = Path::new(&file);
    let pem = std::fs::read(file).map_err(|error| named::unreadable(file, &error).context(variable))?;
    if !String::from_utf8_lossy(&pem).contains(&format!("{what}-----")) {
        let message = format!("{variable}: {}: holds no {} in PEM", file.display(), what.to_lowercase());
        return Err(Error::invalid("server", message));
    }
    Ok(Some(pem))
}

/// Nobody answered. A stack that lives tells the same of its providers; what came over the wire has no cause, though.
pub(crate) fn is_nobody(error: &Error) -> bool {
    error.reason() == Some("upstream_unreachable") && error.source().is_some()
}

/// With what to do where no stack answers, or one that wants to know who asks.
pub(crate) fn explained(error: Error, server: &str) -> Error {
    if error.code() == Code::Unauthenticated && error.reason() != Some("invalid_provider_key") {
        let what = format!("{} holds a key or token that {server} takes, {CERTIFICATE} a certificate", caller::VARIABLE);
        return and(&error, &what);
    }
    // A connection that breaks in its first moments is told by whatever broke first.
    let is_cut = error.code() == Code::Internal && error.source().is_some() && error.message().contains("http2 error");
    if !is_cut && !is_nobody(&error) {
        return error;
    }
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let told = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    // Of a connection that was never there nothing is known; any other broke over what was spoken.
    let is_away = told(&["tcp connect error", "dns error", "onnection refused", "timed out", "deadline has elapsed"]);
    if server.starts_with("https://") && told(&["InvalidContentType", "corrupt message"]) {
        return Error::unavailable(format!("{server} answers without TLS: name it with http://")).with_source(cause);
    }
    if server.starts_with("https://") && !is_away {
        let sentence = format!(
            "{server} answers, and TLS fails: {cause}; {AUTHORITY} names the authority's file where it is a private one, {CERTIFICATE} \
             and {KEY} a certificate of your own"
        );
        return Error::unavailable(sentence);
    }
    let sentence = format!("no stack answers at {server}; start one with `llama-stack run starter`, or name another with --server");
    if !is_away && server.starts_with("http://") {
        return Error::unavailable(format!("{sentence} (with TLS it begins with https://)"));
    }
    Error::unavailable(sentence)
}

/// As [`explained`]; where something is not there, also with the verb that lists what is.
pub(crate) fn listed(error: Error, server: &str, verb: &str) -> Error {
    let error = explained(error, server);
    match error.code() {
        Code::NotFound => and(&error, &format!("`llama-stack {verb}` shows what there is")),
        _ => error,
    }
}

/// The same error, with more at its end.
fn and(error: &Error, more: &str) -> Error {
    let longer = Error::new(error.code(), format!("{}; {more}", error.message()));
    match error.reason() {
        Some(reason) => longer.with_reason(reason),
        None => longer,
    }
}
