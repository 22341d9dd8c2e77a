//! From what a request shows to who makes it.

use llama_stack_core::{Authenticated, Code, Error, Manifest, Result, manifest};
use llama_stack_store::Store;

use crate::{introspection::Introspection, jwt::Jwt, keys::ApiKeys, secret};

/// Every kind of credential that the manifest names, in one place.
pub struct Authenticator {
    anonymous: bool,
    trust_headers: bool,
    keys: Option<ApiKeys>,
    jwt: Vec<Jwt>,
    introspection: Option<Introspection>,
}

/// `Unauthenticated`, without a word of what was shown.
pub(crate) fn wrong(reason: &'static str, message: impl Into<String>) -> Error {
    Error::new(Code::Unauthenticated, message).with_reason(reason)
}

impl Authenticator {
    /// None where the manifest has no `server.auth`.
    ///
    /// # Errors
    /// `InvalidArgument`, with the manifest's line, for keys or algorithms that there are not.
    pub fn from_manifest(manifest: &Manifest, store: &Store) -> Result<Option<Self>> {
        let Some(auth) = &manifest.server.auth else { return Ok(None) };
        let lines = &manifest.lines;
        let jwt = auth.jwt.iter().enumerate().map(|(index, jwt)| {
            Jwt::new(jwt).map_err(|error| {
                let field = error.field().map(|field| format!(".{field}")).unwrap_or_default();
                lines.error(&format!("server.auth.jwt[{index}]{field}"), error.message())
            })
        });
        Ok(Some(Self { jwt: jwt.collect::<Result<_>>()?, ..Self::new(auth, store)? }))
    }

    fn new(auth: &manifest::Auth, store: &Store) -> Result<Self> {
        Ok(Self {
            anonymous: auth.anonymous,
            trust_headers: auth.trust_headers,
            keys: auth.api_keys.then(|| ApiKeys(store.clone())),
            jwt: Vec::new(),
            introspection: auth.introspection.as_ref().map(Introspection::new).transpose()?,
        })
    }

    /// Who it is. `None`: whom the request's headers name. `certificate` is what the connection's client certificate says.
    ///
    /// # Errors
    /// `Unauthenticated` nothing is shown that counts here, or what is shown is wrong · `Unavailable` the issuer's keys or
    /// the authorisation server cannot be had.
    pub async fn authenticate(&self, authorization: Option<&str>, certificate: Option<&Authenticated>) -> Result<Option<Authenticated>> {
        if let Some(shown) = authorization.filter(|_| self.takes_bearers()) {
            let bearer = shown.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer ")).map(|_| shown[7..].trim());
            let bearer = bearer.filter(|bearer| !bearer.is_empty());
            let bearer = bearer.ok_or_else(|| wrong("invalid_authorization", "authorization must be Bearer and an API key or a token"))?;
            return self.bearer(bearer).await.map(Some);
        }
        if let Some(certificate) = certificate {
            return Ok(Some(certificate.clone()));
        }
        if self.trust_headers {
            return Ok(None);
        }
        if self.anonymous {
            return Ok(Some(Authenticated::default()));
        }
        Err(wrong("missing_credentials", "this stack wants to know who calls: send authorization: Bearer and an API key or a token"))
    }

    fn takes_bearers(&self) -> bool {
        self.keys.is_some() || !self.jwt.is_empty() || self.introspection.is_some()
    }

    async fn bearer(&self, bearer: &str) -> Result<Authenticated> {
        if bearer.starts_with(secret::PREFIX)
            && let Some(keys) = &self.keys
        {
            return keys.authenticate(bearer).await;
        }
        let is_signed = bearer.split('.').count() == 3;
        if is_signed
            && let Some(issuer) = Jwt::issuer_of(bearer)
            && let Some(jwt) = self.jwt.iter().find(|jwt| jwt.issuer() == issuer)
        {
            return jwt.authenticate(bearer).await;
        }
        match &self.introspection {
            Some(introspection) => introspection.authenticate(bearer).await,
            None if self.keys.is_some() && (self.jwt.is_empty() || !is_signed) => {
                Err(wrong("invalid_api_key", "the API key is wrong, revoked or expired"))
            }
            None => Err(wrong("invalid_token", "the token is not of an issuer that counts here")),
        }
    }
}
