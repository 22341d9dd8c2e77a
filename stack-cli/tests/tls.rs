//! A stack behind TLS of a private authority, from the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use support::{Said, Server, command};

#[test]
fn a_stack_behind_tls_is_reached_with_its_authority_and_a_certificate_of_ones_own() {
    let home = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ours");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let certify = |name: &str, file: &str| {
        let (params, key) = (CertificateParams::new([name.to_owned()]).unwrap(), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &authority).unwrap();
        (write(&format!("{file}.pem"), &certificate.pem()), write(&format!("{file}.key"), &key.serialize_pem()))
    };
    let ca = write("ca.pem", &authority.pem());
    let (cert, key) = certify("127.0.0.1", "server");
    let (robot, robot_key) = certify("robot.acme", "robot");
    // Of an authority that the stack has never heard of.
    let (stranger, stranger_key) = {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["robot.acme".to_owned()]).unwrap().self_signed(&key).unwrap();
        (write("stranger.pem", &certificate.pem()), write("stranger.key", &key.serialize_pem()))
    };
    let manifest = write(
        "m.yaml",
        &format!(
            "version: 1\nname: t\nserver:\n  tls: {{ cert: \"{cert}\", key: \"{key}\", client_ca: \"{ca}\" }}\n  auth: {{ mtls: {{ roles: [admin] }} }}\nproviders:\n  tools:\n    - {{ id: builtin, type: inline::builtin }}\n"
        ),
    );
    let server = Server::start(home.path(), &manifest);
    let asked = |url: &str, more: &[(&str, &str)]| {
        let mut command = command(home.path());
        command.args(["key", "list", "--server", url]).envs(more.iter().copied());
        Said::from(command.output().unwrap())
    };
    let (trusts, shows, its_key) =
        (("LLAMA_STACK_CA", &*ca), ("LLAMA_STACK_CLIENT_CERT", &*robot), ("LLAMA_STACK_CLIENT_KEY", &*robot_key));
    let good = asked(&server.url, &[trusts, shows, its_key]);
    assert_eq!(good.code, 0, "{}", good.err);
    let plain = server.url.replace("https://", "http://");
    type Refusal<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let refusals: [Refusal<'_>; 6] = [
        (&server.url, &[], "LLAMA_STACK_CA"),
        (&server.url, &[trusts], "LLAMA_STACK_API_KEY"),
        (&server.url, &[trusts, shows], "go together"),
        (&server.url, &[("LLAMA_STACK_CA", &*manifest)], "no certificate in PEM"),
        (&server.url, &[trusts, ("LLAMA_STACK_CLIENT_CERT", &*stranger), ("LLAMA_STACK_CLIENT_KEY", &*stranger_key)], "TLS fails"),
        (&plain, &[], "https://"),
    ];
    for (url, more, said) in refusals {
        let refused = asked(url, more);
        assert!(refused.code != 0 && refused.err.contains(said), "{more:?}: {} {}", refused.code, refused.err);
    }
    assert!(server.stop().success());
}
