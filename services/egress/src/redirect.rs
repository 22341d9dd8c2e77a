//! What a redirect asks for next.

use http::{
    HeaderMap, Method,
    header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, LOCATION, USER_AGENT},
};
use llama_stack_core::{Error, Result};
use url::Url;

use crate::{Request, failure, guard::Refused};

/// Says nothing of who asks, so it may go to another origin.
const HARMLESS: [http::HeaderName; 3] = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT];

/// The request that follows upon an answer; `None` where the answer is the last word. Whether its host may be reached is
/// not decided here.
///
/// # Errors
/// A target that is no URL, another scheme, from https to http, or a body that would go to another origin.
pub(crate) fn next(request: &Request, status: u16, headers: &HeaderMap) -> Result<Option<Request>> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let mut url = target(&request.url, location.as_bytes())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failure::refused(&url, &Refused::Scheme));
    }
    if request.url.scheme() == "https" && url.scheme() == "http" {
        let message = format!("{} redirects from https to http, and that is not followed", failure::host(&request.url));
        return Err(Error::failed_precondition(message).with_reason(crate::REFUSED));
    }
    // What a server writes there are its own words, not this caller's credentials.
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| unreadable(&request.url))?;
    let mut next = Request { url, ..request.clone() };
    let becomes_get = match status {
        303 => request.method != Method::HEAD,
        301 | 302 => request.method == Method::POST,
        _ => false,
    };
    if becomes_get {
        next.method = Method::GET;
        next.body.clear();
        next.headers.remove(CONTENT_TYPE);
    }
    if next.url.origin() != request.url.origin() {
        if !next.body.is_empty() {
            let message = format!("{} redirects what was sent to another origin, and that is not followed", failure::host(&request.url));
            return Err(Error::failed_precondition(message).with_reason(crate::REFUSED));
        }
        next.headers =
            request.headers.iter().filter(|(name, _)| HARMLESS.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    }
    Ok(Some(next))
}

fn target(from: &Url, location: &[u8]) -> Result<Url> {
    let text = std::str::from_utf8(location).map_err(|_| unreadable(from))?;
    from.join(text).map_err(|_| unreadable(from))
}

fn unreadable(from: &Url) -> Error {
    Error::unavailable(format!("{} redirects to something that is no URL", failure::host(from))).with_reason("upstream_malformed")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn follow(from: &str, method: Method, status: u16, to: &str) -> Result<Option<Request>> {
        let mut request = Request::new(method.clone(), from.parse().unwrap());
        if method == Method::POST {
            request = request.with_body("application/json", "{}");
        }
        let request = request.with_header("authorization", "Bearer k").unwrap().with_header("x-api-key", "k").unwrap();
        let request = request.with_header("accept", "text/html").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_str(to).unwrap());
        next(&request, status, &headers)
    }

    fn names(request: &Request) -> Vec<&str> {
        let mut names: Vec<&str> = request.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        let here = follow("https://a.example/x", Method::GET, 302, "/y?z=1").unwrap().unwrap();
        assert_eq!((here.url.as_str(), names(&here).len()), ("https://a.example/y?z=1", 3));
        for there in ["https://b.example/", "https://a.example:8443/", "//b.example/x", "https://user:pass@b.example/"] {
            let there = follow("https://a.example/x", Method::GET, 302, there).unwrap().unwrap();
            assert_eq!(names(&there), ["accept"], "{}", there.url);
            assert_eq!((there.url.username(), there.url.password()), ("", None));
        }
    }

    #[test]
    fn what_is_not_safe_is_not_followed() {
        for (from, to) in [
            ("https://a.example/", "http://a.example/"),
            ("http://a.example/", "file:///etc/passwd"),
            ("http://a.example/", "gopher://a.example/"),
            ("http://a.example/", "data:text/html,x"),
        ] {
            assert_eq!(follow(from, Method::GET, 301, to).unwrap_err().reason(), Some(crate::REFUSED), "{to}");
        }
        assert_eq!(follow("http://a.example/", Method::GET, 301, "http://").unwrap_err().reason(), Some("upstream_malformed"));
        assert_eq!(follow("http://a.example/", Method::POST, 307, "http://b.example/").unwrap_err().reason(), Some(crate::REFUSED));
    }

    #[test]
    fn a_post_becomes_a_get_where_the_protocol_says_so() {
        for (method, status, then) in [
            (Method::POST, 301, Method::GET),
            (Method::POST, 302, Method::GET),
            (Method::POST, 303, Method::GET),
            (Method::POST, 307, Method::POST),
            (Method::POST, 308, Method::POST),
            (Method::HEAD, 303, Method::HEAD),
            (Method::GET, 308, Method::GET),
        ] {
            let next = follow("http://a.example/", method, status, "/next").unwrap().unwrap();
            assert_eq!(next.method, then, "{status}");
            assert_eq!(next.body.is_empty(), then != Method::POST, "{status}");
        }
        assert!(follow("http://a.example/", Method::GET, 304, "/next").unwrap().is_none());
        assert!(follow("http://a.example/", Method::GET, 200, "/next").unwrap().is_none());
    }
}
