//! Which name a request was sent to, and from which page: what a browser lets a foreign page do, this does not.
//!
//! ```text
//! Host, :authority ─ on a loopback listener: a loopback name, or one of server.hosts   else 421
//! Origin ─────────── where something is changed: this site, or one of server.cors_origins   else 403
//! ```
//!
//! A page whose name is made to point at 127.0.0.1 (DNS rebinding) is of the same origin as the stack to its browser; the name gives
//! it away. A page that posts a form asks nobody first; its origin gives it away.

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use llama_stack_core::{Code, Context, Error, Result};
use tonic::Status;

use super::{ApiError, AppState};
use crate::grpc;

/// The names that a listener answers to, and the pages that may change things.
pub(crate) struct Site {
    /// None: any. Others reach the listener, so names are not all there is to it.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl Site {
    /// `hosts`: names beside loopback's, where `address` is loopback; `*` is all.
    pub(crate) fn new(address: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let is_named = address.ip().to_canonical().is_loopback() && !hosts.iter().any(|host| host == "*");
        Self { hosts: is_named.then(|| hosts.to_vec()), origins: origins.to_vec() }
    }

    /// # Errors
    /// `PermissionDenied` for a name that is not this listener's (`wrong_host`).
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let Some(hosts) = &self.hosts else { return Ok(()) };
        let shown = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
        for authority in shown.chain(uri.authority().map(Authority::as_str)) {
            let host = host_of(authority);
            if !is_loopback(host) && !hosts.iter().any(|name| name.eq_ignore_ascii_case(host)) {
                let message = "this stack listens on loopback and was asked under another name; call it localhost or 127.0.0.1, or name \
                               the host in server.hosts";
                return Err(Error::new(Code::PermissionDenied, message).with_reason("wrong_host"));
            }
        }
        Ok(())
    }

    /// Who shows a credential of their own in a header is no page that a browser sends along.
    ///
    /// # Errors
    /// `PermissionDenied` for a change that a page of another site asks for (`origin_not_allowed`).
    fn check_origin(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || headers.contains_key(header::AUTHORIZATION) {
            return Ok(());
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        if self.origins.iter().any(|allowed| allowed == "*" || allowed == origin) {
            return Ok(());
        }
        let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(uri.authority().map(Authority::as_str));
        if own.is_some_and(|own| is_of(origin, own)) {
            return Ok(());
        }
        let message = "pages of this origin may change nothing here; server.cors_origins names those that may";
        Err(Error::new(Code::PermissionDenied, message).with_reason("origin_not_allowed"))
    }
}

/// Around all that a browser could reach; a request of this process's own comes from no page.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if request.extensions().get::<Context>().is_some() {
        return next.run(request).await;
    }
    let (uri, headers) = (request.uri(), request.headers());
    let (error, status) = match state.site.check_host(uri, headers) {
        Err(error) => (error, Some(StatusCode::MISDIRECTED_REQUEST)),
        Ok(()) => match state.site.check_origin(request.method(), uri, headers) {
            Err(error) => (error, None),
            Ok(()) => return next.run(request).await,
        },
    };
    if grpc::is_grpc(headers) {
        return Status::from(error).into_http::<Body>();
    }
    let error = ApiError::from(error);
    match status {
        Some(status) => error.with_status(status).into_response(),
        None => error.into_response(),
    }
}

/// Without its port and the brackets of IPv6.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    // Names below localhost resolve to loopback (RFC 6761), and nobody can register them.
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether a page of `origin` came from `authority`. Ports that go without saying are said by some.
fn is_of(origin: &str, authority: &str) -> bool {
    let Some((scheme, of)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    !of.is_empty() && bare(of) == bare(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(listen: &str, hosts: &[&str]) -> Site {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Site::new(listen.parse().unwrap(), &hosts, &["https://console.example".into()])
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_loopback_listener_answers_to_loopback_names_and_those_that_are_listed() {
        let site = site("127.0.0.1:8321", &["stack.local"]);
        let takes = |host: &str, uri: &str| site.check_host(&uri.parse().unwrap(), &headers(&[("host", host)])).is_ok();
        for host in
            ["localhost", "LOCALHOST:8321", "a.localhost:1", "127.0.0.1:8321", "127.9.9.9", "[::1]:8321", "stack.local:1", "localhost."]
        {
            assert!(takes(host, "/"), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8321", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1:8321", "", "notlocalhost"]
        {
            assert!(!takes(host, "/"), "{host}");
        }
        assert!(!takes("localhost", "http://evil.example/"), "HTTP/2 and proxies say it in the address");
        assert!(site.check_host(&"/".parse().unwrap(), &HeaderMap::new()).is_ok(), "no browser leaves it out");
    }

    #[test]
    fn a_listener_that_others_reach_and_one_that_takes_every_name_do_not_ask() {
        for site in [site("0.0.0.0:8321", &[]), site("127.0.0.1:8321", &["*"])] {
            assert!(site.check_host(&"/".parse().unwrap(), &headers(&[("host", "stack.example")])).is_ok());
        }
    }

    #[test]
    fn a_foreign_page_changes_nothing() {
        let site = site("127.0.0.1:8321", &[]);
        let may = |method: Method, origin: &str, more: &[(&'static str, &str)]| {
            let headers = headers(&[&[("host", "localhost:8321"), ("origin", origin)], more].concat());
            site.check_origin(&method, &"/".parse().unwrap(), &headers).is_ok()
        };
        assert!(may(Method::POST, "http://localhost:8321", &[]) && may(Method::POST, "https://console.example", &[]));
        for origin in ["null", "https://evil.example", "http://localhost:3000", "file://localhost:8321", "http://"] {
            assert!(!may(Method::POST, origin, &[]) && !may(Method::DELETE, origin, &[]), "{origin}");
            assert!(may(Method::GET, origin, &[]), "what may be read is CORS's matter");
        }
        assert!(
            may(Method::POST, "https://evil.example", &[("authorization", "Bearer x")]),
            "a page cannot send that without asking first"
        );
        assert!(is_of("https://stack.example", "stack.example:443") && !is_of("http://stack.example", "stack.example:443"));
    }
}
