//! A listener that others reach wants to know who calls.

use std::net::{SocketAddr, ToSocketAddrs as _};

use llama_stack_core::{Error, Manifest, Result, manifest::Server};

/// # Errors
/// `FailedPrecondition` for an address that is not loopback, where callers need no credential.
pub fn check_exposure(server: &Server, address: SocketAddr) -> Result<()> {
    if address.ip().to_canonical().is_loopback() || server.auth.as_ref().is_some_and(|auth| !auth.anonymous) {
        return Ok(());
    }
    let what = match &server.auth {
        Some(_) => "server.auth lets anonymous callers in; take server.auth.anonymous out",
        None => "nothing says who may call; add server.auth, for example with api_keys: true",
    };
    let message = format!("{address} can be reached from other machines, and {what}, or listen on 127.0.0.1");
    Err(Error::failed_precondition(message).with_field("server.listen").with_reason("listener_without_auth"))
}

/// [`check_exposure`] of the address that a manifest names, whether it can be listened on now or not.
///
/// # Errors
/// As [`check_exposure`]; and `InvalidArgument` with the manifest's line for what is no address.
pub fn check_listen(manifest: &Manifest) -> Result<()> {
    let (listen, lines) = (&manifest.server.listen, &manifest.lines);
    let address = listen.to_socket_addrs().ok().and_then(|mut all| all.next());
    let address =
        address.ok_or_else(|| lines.error("server.listen", &format!("{listen:?} must be host:port, with a host of this machine")))?;
    check_exposure(&manifest.server, address)
        .map_err(|error| error.context(format_args!("{}: server.listen", lines.place("server.listen"))))
}

#[cfg(test)]
mod tests {
    use llama_stack_core::manifest::Auth;

    use super::*;

    #[test]
    fn a_public_listener_without_auth_is_refused() {
        let refused = |auth: Option<Auth>, address: &str| {
            let server = Server { auth, ..Server::default() };
            check_exposure(&server, address.parse().unwrap()).err().map(|error| error.message().to_owned())
        };
        let keys = || Some(Auth { api_keys: true, ..Auth::default() });
        let anonymous = || Some(Auth { api_keys: true, anonymous: true, ..Auth::default() });
        assert!(refused(None, "0.0.0.0:1").unwrap().contains("add server.auth"));
        assert!(refused(None, "[::]:1").is_some() && refused(anonymous(), "10.0.0.1:1").unwrap().contains("anonymous"));
        assert_eq!((refused(None, "127.0.0.1:1"), refused(None, "[::1]:1"), refused(keys(), "0.0.0.0:1")), (None, None, None));
        assert_eq!((refused(None, "[::ffff:127.0.0.1]:1"), refused(anonymous(), "127.0.0.2:1")), (None, None));
    }

    #[test]
    fn an_address_is_looked_at_before_anybody_listens() {
        let said = |listen: &str| {
            let manifest = Manifest::parse(&format!("version: 1\nname: t\nserver: {{ listen: '{listen}' }}\n"), "m.yaml").unwrap();
            check_listen(&manifest).err().map(|error| error.message().to_owned())
        };
        assert_eq!(said("127.0.0.1:0"), None);
        assert!(said("0.0.0.0:1").unwrap().contains("add server.auth"));
        for wrong in ["8321", "127.0.0.1:99999"] {
            assert!(said(wrong).unwrap().starts_with("m.yaml:3: server.listen: "), "{:?}", said(wrong));
        }
    }
}
