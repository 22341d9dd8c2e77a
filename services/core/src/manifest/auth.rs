//! `server.auth` and `server.tls`: who may call, and how they show who they are.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::Lines;
use crate::{Result, context::DEFAULT_TENANT};

/// Which credentials are good here. Without this section everybody is whom their headers say, and the listener must be
/// loopback.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Callers without a credential are `anonymous`, of tenant `default`, without roles. The listener must be loopback.
    pub anonymous: bool,
    /// Callers without a credential are whom the headers `x-llama-stack-principal`, `-tenant` and `-roles` say: for a
    /// listener that only a proxy reaches, which sets them.
    pub trust_headers: bool,
    /// Keys of the store: `authorization: Bearer lsk_…`.
    pub api_keys: bool,
    /// Issuers of signed tokens. Of several, the one that a token names decides.
    pub jwt: Vec<Jwt>,
    /// Asks an authorisation server about tokens that say nothing by themselves.
    pub introspection: Option<Introspection>,
    /// Clients' certificates; needs `server.tls.client_ca`.
    pub mtls: Option<Mtls>,
    /// Roles whose holders speak for others: whom their headers `x-llama-stack-principal`, `-tenant` and `-roles` name counts. For
    /// another stack that passes identities on. Default: none.
    pub delegates: Vec<String>,
    /// How many wrong credentials may come from one address.
    pub attempts: Attempts,
    pub policy: AccessPolicy,
}

/// Wrong credentials from one address, of IPv6 from one /64. Whoever has shown that many waits, whatever they show then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attempts {
    /// So many at once. Default 20.
    pub burst: u32,
    /// So many come back, evenly. Default 60.
    pub per_minute: u32,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { burst: 20, per_minute: 60 }
    }
}

/// What is more is a mistake.
const MOST_ATTEMPTS: u32 = 1_000_000;

/// Who may do what, beside what holds anyhow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessPolicy {
    /// The policies that come with the stack hold too. Default true.
    pub built_in: bool,
    /// Files of Cedar policies, read again when they change. A relative path begins at the manifest's folder.
    pub files: Vec<PathBuf>,
    /// Cedar policies, written here.
    pub text: Option<String>,
}

impl Default for AccessPolicy {
    fn default() -> Self {
        Self { built_in: true, files: Vec::new(), text: None }
    }
}

/// An issuer of signed tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must hold one of.
    pub audience: Vec<String>,
    /// Where the issuer publishes its keys. Without this and `keys` it is asked: `ISSUER/.well-known/openid-configuration`.
    pub jwks_url: Option<String>,
    /// A JWK set, written here.
    pub keys: Option<serde_json::Value>,
    /// Signatures that count. Default: the asymmetric ones that the issuer's keys are for.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// How far the issuer's clock may be from this one's. Default 60.
    #[serde(default = "default_skew")]
    pub skew_seconds: u64,
    #[serde(default)]
    pub claims: Claims,
}

fn default_skew() -> u64 {
    60
}

/// Which claim says what. Dots go into objects: `realm_access.roles`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Claims {
    /// Default `sub`.
    pub principal: String,
    /// Default: none, and everybody is of `default_tenant`. Where it is named, a token without it is refused.
    pub tenant: Option<String>,
    /// Default `default`.
    pub default_tenant: String,
    /// A list, or a text parted by spaces. Default `roles`.
    pub roles: String,
    /// What an issuer's role is called here. Empty: as there, and else only those that are named.
    pub role_names: BTreeMap<String, String>,
    /// Attribute → claim.
    pub attributes: BTreeMap<String, String>,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            principal: "sub".into(),
            tenant: None,
            default_tenant: DEFAULT_TENANT.into(),
            roles: "roles".into(),
            role_names: BTreeMap::new(),
            attributes: BTreeMap::new(),
        }
    }
}

/// Token introspection (RFC 7662).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    pub url: String,
    pub client_id: String,
    pub client_secret: crate::context::Secret,
    /// What the answer's `aud` must hold one of. Default: none, and every token counts that the server calls active.
    #[serde(default)]
    pub audience: Vec<String>,
    /// How long an answer counts. Default 30.
    #[serde(default = "default_cache")]
    pub cache_seconds: u64,
    #[serde(default)]
    pub claims: Claims,
}

fn default_cache() -> u64 {
    30
}

/// What a client's certificate says of its owner.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mtls {
    /// Where the principal stands. Default `san`.
    pub principal: CertificateName,
    /// Default `default`.
    pub tenant: String,
    /// Of every certificate.
    pub roles: Vec<String>,
    /// Principal → more roles.
    pub roles_of: BTreeMap<String, Vec<String>>,
}

impl Default for Mtls {
    fn default() -> Self {
        Self { principal: CertificateName::San, tenant: DEFAULT_TENANT.into(), roles: Vec::new(), roles_of: BTreeMap::new() }
    }
}

/// A name in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    /// The first URI, mail address or DNS name among the alternative names; without any, the common name.
    San,
    /// The subject's common name.
    Cn,
}

/// TLS on the listener. The files are read again when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and what it hangs from, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Who signs clients' certificates, in PEM. Without it clients show none.
    pub client_ca: Option<PathBuf>,
}

impl Auth {
    /// Whether anything here tells callers apart.
    fn has_credential(&self) -> bool {
        self.trust_headers || self.api_keys || !self.jwt.is_empty() || self.introspection.is_some() || self.mtls.is_some()
    }

    pub(super) fn validate(&self, tls: Option<&Tls>, lines: &Lines) -> Result<()> {
        if !self.anonymous && !self.has_credential() {
            return Err(lines.error("server.auth", "lets nobody in; name api_keys, jwt, introspection, mtls, trust_headers or anonymous"));
        }
        if self.anonymous && self.trust_headers {
            return Err(
                lines.error("server.auth.anonymous", "stands beside trust_headers; callers without a credential are one or the other")
            );
        }
        if self.mtls.is_some() && tls.is_none_or(|tls| tls.client_ca.is_none()) {
            return Err(lines.error("server.auth.mtls", "needs server.tls.client_ca, which says whose certificates count"));
        }
        let Attempts { burst, per_minute } = self.attempts;
        for (name, count) in [("burst", burst), ("per_minute", per_minute)] {
            if !(1..=MOST_ATTEMPTS).contains(&count) {
                let what = format!("is {count}; it must be 1 to {MOST_ATTEMPTS}");
                return Err(lines.error(&format!("server.auth.attempts.{name}"), &what));
            }
        }
        for (index, jwt) in self.jwt.iter().enumerate() {
            let path = format!("server.auth.jwt[{index}]");
            if jwt.issuer.is_empty() {
                return Err(lines.error(&format!("{path}.issuer"), "is empty; must be what the tokens' iss says"));
            }
            if jwt.audience.is_empty() {
                return Err(lines.error(&format!("{path}.audience"), "is empty; a token for another service would count here too"));
            }
            if jwt.jwks_url.is_some() && jwt.keys.is_some() {
                return Err(lines.error(&path, "must have either jwks_url or keys, or neither where the issuer says where its keys are"));
            }
            let is_url = jwt.issuer.starts_with("https://") || jwt.issuer.starts_with("http://");
            if jwt.jwks_url.is_none() && jwt.keys.is_none() && !is_url {
                return Err(lines.error(&path, "must have jwks_url or keys: the issuer is no URL that could be asked for its keys"));
            }
            if self.jwt[..index].iter().any(|earlier| earlier.issuer == jwt.issuer) {
                return Err(lines.error(&format!("{path}.issuer"), &format!("{:?} is named twice", jwt.issuer)));
            }
        }
        if self.policy.text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(lines.error("server.auth.policy.text", "is empty; leave it out, or write at least one policy"));
        }
        if !self.policy.built_in && self.policy.files.is_empty() && self.policy.text.is_none() {
            return Err(lines.error("server.auth.policy.built_in", "is false, and there is no other policy: every call would be denied"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Manifest;

    fn message(server: &str) -> String {
        let text = format!("version: 1\nname: t\nserver:\n{server}");
        Manifest::parse_with(&text, "m.yaml", &|_| None).map(drop).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_section_that_lets_nobody_in_or_checks_too_little_is_refused() {
        assert!(message("  auth: {}\n").starts_with("m.yaml:4: server.auth: lets nobody in"));
        assert!(message("  auth: { mtls: {} }\n").contains("server.auth.mtls: needs server.tls.client_ca"));
        let jwt = "  auth:\n    jwt:\n      - issuer: https://a\n";
        assert!(message(&format!("{jwt}        audience: []\n        keys: {{}}\n")).contains("server.auth.jwt[0].audience: is empty"));
        let both = "        audience: [x]\n        keys: {}\n        jwks_url: https://a/keys\n";
        assert!(message(&format!("{jwt}{both}")).contains("must have either jwks_url or keys"));
        assert!(message("  auth: { jwt: [{ issuer: ours, audience: [x] }] }\n").contains("no URL that could be asked"));
        assert!(message("  auth: { anonymous: true, trust_headers: true }\n").contains("server.auth.anonymous"));
        assert!(message("  auth: { api_keys: true, policy: { built_in: false } }\n").contains("every call would be denied"));
        let attempts = |what: &str| message(&format!("  auth: {{ api_keys: true, attempts: {{ {what} }} }}\n"));
        assert!(attempts("burst: 0").starts_with("m.yaml:4: server.auth.attempts.burst: is 0; it must be 1"), "{}", attempts("burst: 0"));
        assert!(attempts("per_minute: 2000000").contains("server.auth.attempts.per_minute: is 2000000"));
    }
}
