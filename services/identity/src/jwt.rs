//! Signed tokens (JWT) of the issuers that the manifest names.

use std::str::FromStr;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, dangerous,
    errors::{Error as Fault, ErrorKind},
    jwk::{AlgorithmParameters, Jwk},
};
use llama_stack_core::{
    Authenticated, Error, Result,
    manifest::{self, Claims},
};
use serde_json::Value;

use crate::{authenticator::wrong, claims, jwks::Keys};

/// Longest token that is looked at.
const BYTES: usize = 16 << 10;
/// What a public key can sign. HMAC is not among them: a published key must never be taken for a shared secret.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// One issuer.
pub(crate) struct Jwt {
    issuer: String,
    audience: Vec<String>,
    skew_seconds: u64,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    claims: Claims,
}

impl Jwt {
    /// # Errors
    /// `InvalidArgument`, on the field.
    pub(crate) fn new(config: &manifest::Jwt) -> Result<Self> {
        let algorithm = |(index, name): (usize, &String)| {
            let known = || Error::invalid(format!("algorithms[{index}]"), format!("{name:?} is no algorithm like RS256, ES256 or EdDSA"));
            Algorithm::from_str(name).map_err(|_| known())
        };
        let algorithms: Vec<Algorithm> = config.algorithms.iter().enumerate().map(algorithm).collect::<Result<_>>()?;
        let keys = match (&config.keys, &config.jwks_url) {
            (Some(keys), _) => Keys::inline(keys)?,
            (None, Some(url)) => Keys::fetched(url)?,
            (None, None) => Keys::discovered(&config.issuer)?,
        };
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            skew_seconds: config.skew_seconds,
            algorithms: if algorithms.is_empty() { ASYMMETRIC.into() } else { algorithms },
            keys,
            claims: config.claims.clone(),
        })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Who a token says that it is from: to choose whose keys to check it with, and nothing else.
    pub(crate) fn issuer_of(token: &str) -> Option<String> {
        let said: Value = dangerous::insecure_decode_claims(Some(token).filter(|token| token.len() <= BYTES)?).ok()?;
        said.get("iss")?.as_str().map(Into::into)
    }

    /// # Errors
    /// `Unauthenticated`, with what is wrong, or `Unavailable` where the issuer's keys cannot be had.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<Authenticated> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&error))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(wrong("invalid_token", format!("the token is signed by {:?}, which does not count here", header.alg)));
        }
        let jwk = self.keys.key(header.kid.as_deref()).await?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| refused(&error))?;
        if !fits(&jwk, header.alg) {
            return Err(wrong("invalid_token", "the token's key is for other signatures"));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = self.skew_seconds;
        validation.validate_nbf = true;
        let said = jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(|error| refused(&error))?.claims;
        claims::authenticated(&self.claims, &said, "jwt")
    }
}

/// Whether a key of this kind makes such signatures, and says nothing against it.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let kind = match jwk.algorithm {
        AlgorithmParameters::RSA(_) => "RP",
        AlgorithmParameters::EllipticCurve(_) => "E",
        AlgorithmParameters::OctetKeyPair(_) => "E",
        AlgorithmParameters::OctetKey(_) => "H",
        _ => return false,
    };
    let name = format!("{algorithm:?}");
    let said = jwk.common.key_algorithm.as_ref().is_none_or(|said| said.to_string() == name);
    said && name.chars().next().is_some_and(|first| kind.contains(first))
}

fn refused(error: &Fault) -> Error {
    let what = match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "it lacks exp, iss or aud",
        _ => "it cannot be read or checked",
    };
    wrong("invalid_token", format!("the token does not count: {what}"))
}
