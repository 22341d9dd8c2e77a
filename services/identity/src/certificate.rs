//! Clients' certificates, which the TLS handshake has checked already.

use llama_stack_core::{
    Authenticated, Principal, Result,
    context::named,
    manifest::{CertificateName, Mtls},
};
use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

use crate::authenticator::wrong;

/// # Errors
/// `Unauthenticated` for a certificate without a name that can be a principal's.
pub fn from_certificate(config: &Mtls, der: &[u8]) -> Result<Authenticated> {
    let refused = |what: &str| wrong("invalid_certificate", format!("the client's certificate {what}"));
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| refused("cannot be read"))?;
    let common = || certificate.subject().iter_common_name().find_map(|name| name.as_str().ok().map(str::to_owned));
    let name = match config.principal {
        CertificateName::Cn => common(),
        CertificateName::San => alternative(&certificate).or_else(common),
    };
    let name = name.ok_or_else(|| refused("names nobody"))?;
    // A SPIFFE id is a URI; its scheme and slashes are no part of a name here.
    let name = name.trim_start_matches("spiffe://").replace('/', ":");
    let id = named("certificate", &name).map_err(|_| refused("has a name that is not 1 to 128 of letters, digits and _ . @ : | + -"))?;
    let more = config.roles_of.get(&id).into_iter().flatten();
    let roles = config.roles.iter().chain(more).cloned().collect();
    Ok(Authenticated {
        principal: Principal { id, tenant: config.tenant.clone(), roles },
        credential: "certificate".into(),
        ..Default::default()
    })
}

/// The first URI, mail address or DNS name.
fn alternative(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    names.iter().find_map(|name| match name {
        GeneralName::URI(name) | GeneralName::RFC822Name(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })
}
