//! Who may call, with which certificate, by which policies, and what secrets are sealed with: what else ends a start before anything
//! is asked.

use std::net::ToSocketAddrs as _;

use llama_stack_core::{Manifest, Result};
use llama_stack_server::{CedarPolicy, Policies, check_exposure, check_tls, install_crypto};
use llama_stack_store::Sealer;

use super::Finding;

pub(super) fn look(manifest: &Manifest, findings: &mut Vec<Finding>) {
    install_crypto();
    let address = manifest.server.listen.to_socket_addrs().ok().and_then(|mut all| all.next());
    // What is no address is told of the port.
    if let Some(Err(error)) = address.map(|address| check_exposure(&manifest.server, address)) {
        findings.push(Finding::fail("callers", error.message(), "see docs/identity.md"));
    }
    if manifest.server.tls.is_some() {
        findings.push(told("tls", "certificate and key go together", check_tls(manifest), "correct the file, or the line that names it"));
    }
    let policies = Policies::from_manifest(manifest).and_then(|_| CedarPolicy::from_manifest(manifest)).map(drop);
    findings.push(told("policies", "of access and of tools can be read", policies, "correct that line"));
    match manifest.secrets.keys(&manifest.lines).and_then(|keys| Sealer::new(&keys)) {
        Ok(None) => {}
        sealer => findings.push(told(
            "secrets",
            "the key to seal with can be read",
            sealer.map(drop),
            "correct the file, or the line that names it",
        )),
    }
}

fn told(what: &str, good: &str, looked: Result<()>, advice: &str) -> Finding {
    match looked {
        Ok(()) => Finding::ok(what, good),
        Err(error) => Finding::fail(what, error.message(), advice),
    }
}
