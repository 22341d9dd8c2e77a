//! What callers are told where nothing came back.

use std::{error::Error as StdError, io, time::Duration};

use llama_stack_core::{Code, Error};
use url::Url;

use crate::{REFUSED, guard::Refused};

/// A host as errors name it: nothing of a URL's path and query, where keys may stand.
pub(crate) fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_else(|| url.scheme())
}

/// Says what would open the way, to whoever may do that.
pub(crate) fn refused(url: &Url, why: &Refused) -> Error {
    let host = host(url);
    let open = || {
        let port = url.port_or_known_default().unwrap_or_default();
        format!("; to open it to tools, the manifest has egress: {{ allow: [\"{host}:{port}\"] }}")
    };
    let message = match why {
        Refused::Special { address, what } if host.trim_matches(['[', ']']) == address.to_string() => {
            format!("{host} may not be reached: it is {what}{}", open())
        }
        Refused::Special { .. } | Refused::NotAllowed | Refused::Port => format!("{host} may not be reached: {why}{}", open()),
        Refused::Denied { .. } => format!("{host} may not be reached: {why}"),
        Refused::Scheme => format!("{}: URLs may not be opened: {why}", url.scheme()),
    };
    tracing::warn!(host, port = url.port_or_known_default(), %why, "egress refused");
    Error::new(Code::PermissionDenied, message).with_reason(REFUSED)
}

/// What the guard has refused, where that is why a client of [`crate::Client::for_origin`] could not connect.
pub fn refusal(url: &Url, error: &reqwest::Error) -> Option<Error> {
    cause::<Refused>(error).map(|why| refused(url, why))
}

pub(crate) fn no_answer(url: &Url, error: reqwest::Error) -> Error {
    let host = host(url);
    if let Some(refusal) = refusal(url, &error) {
        return refusal;
    }
    let how = match cause::<rustls::Error>(&error) {
        Some(rustls::Error::InvalidCertificate(_)) => "showed a certificate that is not trusted",
        _ if error.is_dns() => "has no address that is known here",
        _ if error.is_connect() && error.is_timeout() => "did not accept a connection in time",
        _ if error.is_connect() => "cannot be connected to",
        _ => "closed the connection before it answered",
    };
    Error::unavailable(format!("{host} {how}")).with_reason("upstream_unreachable").with_source(error.without_url())
}

pub(crate) fn broken(url: &Url, error: reqwest::Error) -> Error {
    let message = format!("{} broke off before its answer was done", host(url));
    Error::unavailable(message).with_reason("upstream_unreachable").with_source(error.without_url())
}

pub(crate) fn unreadable(url: &Url, what: &str) -> Error {
    Error::unavailable(format!("{} answered {what}", host(url))).with_reason("upstream_malformed")
}

pub(crate) fn too_long(url: &Url, total: Duration) -> Error {
    let message = format!("{} was not done within {} s", host(url), total.as_secs_f32());
    Error::new(Code::DeadlineExceeded, message).with_reason("upstream_timeout")
}

pub(crate) fn too_many(url: &Url, most: usize) -> Error {
    Error::unavailable(format!("{} redirected more than {most} times", host(url))).with_reason("too_many_redirects")
}

fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // What an I/O error wraps is not its source: it passes that over, to the source of what it wraps.
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    None
}
