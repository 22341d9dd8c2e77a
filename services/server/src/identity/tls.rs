//! TLS on the listener, with certificates that are read again when their files change.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use llama_stack_core::{Error, Manifest, Result, manifest};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A handshake has this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the client of a connection showed, in DER; the handshake has checked that its authority counts here.
#[derive(Clone)]
pub(crate) struct PeerCertificate(pub(crate) Arc<[u8]>);

/// Why there is no TLS with a client.
pub(crate) struct Failure {
    /// One of [`Failure::REASONS`].
    pub(crate) reason: &'static str,
    /// What it did wrong, for the log.
    pub(crate) error: String,
}

impl Failure {
    /// Its certificate does not count here · it gave up, perhaps for this server's certificate · it speaks no TLS, or none that is
    /// known here · it went away · it took too long.
    pub(crate) const REASONS: [&str; 5] = [Self::CERTIFICATE, "alert", "protocol", "closed", "timeout"];
    pub(crate) const CERTIFICATE: &str = "certificate";
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let reason = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => Self::CERTIFICATE,
            Some(rustls::Error::AlertReceived(_)) => "alert",
            Some(_) => "protocol",
            None => "closed",
        };
        Self { reason, error: error.to_string() }
    }
}

/// What each new connection is greeted with.
pub(crate) struct Tls {
    files: manifest::Tls,
    current: ArcSwap<ServerConfig>,
}

/// The files' contents.
#[derive(PartialEq, Eq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// None where the manifest names no certificate. Relative paths begin at the manifest's folder.
    ///
    /// # Errors
    /// `InvalidArgument`, with the manifest's line: a file that cannot be read, or is not what it should be.
    pub(crate) fn from_manifest(manifest: &Manifest) -> Result<Option<Arc<Self>>> {
        let Some(named) = &manifest.server.tls else { return Ok(None) };
        let folder = std::path::Path::new(manifest.lines.file()).parent().map(PathBuf::from).unwrap_or_default();
        let client_ca = named.client_ca.as_ref().map(|file| folder.join(file));
        let files = manifest::Tls { cert: folder.join(&named.cert), key: folder.join(&named.key), client_ca };
        let placed = |error: Error| {
            let path = format!("server.tls.{}", error.field().unwrap_or("cert"));
            manifest.lines.error(&path, error.message())
        };
        let config = read(&files).and_then(|pem| config(&files, &pem)).map_err(placed)?;
        Ok(Some(Arc::new(Self { files, current: ArcSwap::from_pointee(config) })))
    }

    /// # Errors
    /// What the client did wrong.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Option<PeerCertificate>), Failure> {
        let greeting = TlsAcceptor::from(self.current.load_full()).accept(stream);
        let late = |_| Failure { reason: "timeout", error: "the handshake took too long".into() };
        let stream = tokio::time::timeout(HANDSHAKE, greeting).await.map_err(late)??;
        let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|shown| PeerCertificate(shown.as_ref().into()));
        Ok((stream, peer))
    }

    /// Looks for changes until `shutdown`. Files that have become wrong change nothing: what was there stays, and the log says
    /// why. Connections that are there keep what they were greeted with.
    pub(crate) async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let mut known = None;
        while tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_err() {
            let files = self.files.clone();
            // Between two writes a certificate has not its key yet; the next look finds both.
            let Ok(Ok(pem)) = tokio::task::spawn_blocking(move || read(&files)).await else { continue };
            if known.as_ref() == Some(&pem) {
                continue;
            }
            match config(&self.files, &pem) {
                Ok(config) => {
                    if known.is_some() {
                        tracing::info!("the certificates were read again");
                    }
                    self.current.store(Arc::new(config));
                }
                Err(error) => tracing::error!(error = ?error, "the certificates are wrong now; those before stay"),
            }
            known = Some(pem);
        }
    }
}

fn read(files: &manifest::Tls) -> Result<Pem> {
    let one = |field: &'static str, path: &PathBuf| {
        std::fs::read(path).map_err(|error| Error::invalid(field, format!("{}: cannot be read: {error}", path.display())))
    };
    let client_ca = files.client_ca.as_ref().map(|path| one("client_ca", path)).transpose()?;
    Ok(Pem { cert: one("cert", &files.cert)?, key: one("key", &files.key)?, client_ca })
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(std::result::Result::ok).collect();
    if found.is_empty() {
        return Err(Error::invalid(field, "holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

/// # Errors
/// `InvalidArgument`, which names the file.
fn config(files: &manifest::Tls, pem: &Pem) -> Result<ServerConfig> {
    configured(pem).map_err(|error| {
        let file = match (error.field(), &files.client_ca) {
            (Some("key"), _) => &files.key,
            (Some("client_ca"), Some(file)) => file,
            _ => &files.cert,
        };
        error.context(file.display())
    })
}

fn configured(pem: &Pem) -> Result<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(&pem.key);
    let key = key.map_err(|error| Error::invalid("key", "holds no private key in PEM").with_source(error.to_string()))?;
    let builder = match &pem.client_ca {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(certificates("client_ca", authorities)?);
            if added == 0 {
                return Err(Error::invalid("client_ca", "holds no certificate that can be an authority"));
            }
            // A client without a certificate may show a key instead; the gate wants one of them.
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
            let verifier = verifier.map_err(|error| Error::invalid("client_ca", "cannot be used").with_source(error))?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(certificates("cert", &pem.cert)?, key);
    let mut config = config.map_err(|error| Error::invalid("cert", format!("does not go with its key: {error}")).with_source(error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_names_its_file() {
        let files = manifest::Tls { cert: "a/cert.pem".into(), key: "a/key.pem".into(), client_ca: Some("a/ca.pem".into()) };
        let none = || Pem { cert: Vec::new(), key: b"none".to_vec(), client_ca: Some(Vec::new()) };
        let told = config(&files, &none()).unwrap_err();
        assert_eq!((told.field(), told.message()), (Some("key"), "a/key.pem: holds no private key in PEM"));
        // Any key will do: it is looked at before the others, and compared with none of them here.
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec();
        let told = config(&files, &Pem { key, ..none() }).unwrap_err();
        assert!(told.message().starts_with("a/ca.pem: holds no certificate"), "{told}");
    }
}
