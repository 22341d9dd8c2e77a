//! Whose word a server's certificate is taken on, and what is wrong with one that is not trusted.

use std::{error::Error as StdError, io, path::Path};

use reqwest::Certificate;
use rustls::CertificateError as Fault;

use llama_stack_core::{Error, Result};

/// The authorities of a PEM file; none where no file is named.
///
/// # Errors
/// `InvalidArgument`, on `config.ca_certificate`, for a file that cannot be read or holds no certificate in PEM.
pub(super) async fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    if file.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let pem = tokio::fs::read(file).await.map_err(|error| wrong(file, &format!("cannot be read: {error}")))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| not_one(file).with_source(error))?;
    if authorities.is_empty() {
        return Err(wrong(file, "holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(authorities)
}

/// Something in the file looks like a certificate.
pub(super) fn not_one(file: &Path) -> Error {
    wrong(file, "holds a certificate that cannot be read")
}

fn wrong(file: &Path, what: &str) -> Error {
    Error::invalid("config.ca_certificate", format!("{}: {what}", file.display()))
}

/// What is wrong with the certificate that was shown, where that is why there is no connection.
pub(super) fn distrust(error: &reqwest::Error) -> Option<&'static str> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(fault)) = cause.downcast_ref() {
            return Some(said(fault));
        }
        // What an I/O error wraps is not its source: it passes that over, to the source of what it wraps.
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    None
}

fn said(fault: &Fault) -> &'static str {
    match fault {
        Fault::UnknownIssuer => "its authority is not known here; ca_certificate adds one",
        Fault::Expired | Fault::ExpiredContext { .. } => "it has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => "it is not valid yet",
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => "it is for another name",
        _ => "it is not valid",
    }
}
