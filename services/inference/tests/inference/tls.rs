//! Upstreams over TLS, and whose word their certificates are taken on.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs},
};

use llama_stack_core::{Code, Error, Inference};
use llama_stack_proto::v1::ChatRequest;

use crate::{
    all, cx, openai, provider,
    server::{DONE, FINISHED, Server, json, said, spoken, stream},
};

/// A private authority, and its certificate as a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
    _folder: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file, _folder: folder }
    }

    /// A server's side of TLS, certified for `name` until the end of `year`.
    fn certify(&self, name: &str, year: i32) -> TlsAcceptor {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap()))
    }
}

async fn refusal(provider: &dyn Inference) -> Error {
    let error = provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_untrusted")), "{error:?}");
    error
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new("ours");
    let server = Server::start_tls(authority.certify("127.0.0.1", 2090), |number, _| match number {
        0 => json(&spoken("safe")),
        _ => stream(&[said("streamed"), FINISHED.into(), DONE.into()].concat()),
    })
    .await;
    let provider = openai(json!({ "url": server.url, "ca_certificate": authority.file })).await;
    let response = provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap();
    assert_eq!(response.choices[0].message.as_ref().unwrap().joined_text(), "safe");
    let (events, error) = all(provider.stream_chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap()).await;
    assert!(error.is_none() && !events.is_empty(), "{error:?}");
    assert_eq!(server.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn an_unknown_authority_is_said_at_once() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Server::start_tls(authority.certify("127.0.0.1", 2090), |_, _| json(&spoken("never"))).await;
    for config in [json!({ "url": server.url }), json!({ "url": server.url, "ca_certificate": other.file })] {
        let error = refusal(&*openai(config).await).await;
        assert!(error.message().contains("\"up\": the certificate of 127.0.0.1:") && error.message().contains("is not trusted"), "{error}");
    }
    assert_eq!((server.connections(), server.requests().len()), (2, 0), "it is not tried again, and hears no key");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told() {
    let authority = Authority::new("ours");
    for (name, year, says) in [("localhost", 2090, "another name"), ("127.0.0.1", 2001, "expired")] {
        let server = Server::start_tls(authority.certify(name, year), |_, _| json(&spoken("never"))).await;
        let error = refusal(&*openai(json!({ "url": server.url, "ca_certificate": authority.file })).await).await;
        assert!(error.message().contains("is not trusted") && error.message().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_certificate_is_refused_at_start() {
    let folder = TempDir::new().unwrap();
    for (name, text, says) in [
        ("absent.pem", None, "cannot be read"),
        ("empty.pem", Some(""), "BEGIN CERTIFICATE"),
        ("der.crt", Some("no text at all"), "BEGIN CERTIFICATE"),
        ("torn.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), "cannot be read"),
        ("other.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be read"),
    ] {
        let file = folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error = provider("remote::openai", json!({ "url": "https://127.0.0.1:1/v1", "ca_certificate": file })).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("config.ca_certificate")), "{error}");
        assert!(error.message().contains(name) && error.message().contains(says), "{error}");
    }
    openai(json!({ "url": "https://127.0.0.1:1/v1", "ca_certificate": "" })).await;
}
