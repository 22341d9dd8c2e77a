//! An issuer's keys: fetched when they are needed, kept, and fetched again when a token names one that is not there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::{
    DecodingKey,
    jwk::{Jwk, PublicKeyUse},
};
use llama_stack_core::{Error, Result};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{authenticator::wrong, fetch};

/// How long fetched keys count without another look.
const FRESH: Duration = Duration::from_secs(600);
/// Keys that cannot be fetched again count this long.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// After a fetch that did not bring the key, no other in this time: made-up key ids are no flood for the issuer.
const PAUSE: Duration = Duration::from_secs(5);

/// Keys, and since when they are known.
struct Known {
    keys: Vec<Jwk>,
    since: Instant,
}

/// Where keys are published.
enum Place {
    Url(String),
    /// Where this issuer says (OpenID Connect Discovery 1.0).
    Issuer(String),
}

pub(crate) enum Keys {
    Inline(Vec<Jwk>),
    Fetched(Fetched),
}

pub(crate) struct Fetched {
    place: Place,
    http: reqwest::Client,
    known: ArcSwapOption<Known>,
    /// When it was last tried in vain. Held while one fetches; the others wait for what comes.
    in_vain: Mutex<Option<Instant>>,
}

/// Keys of kinds that are not known here are left out.
fn read(set: &Value) -> Option<Vec<Jwk>> {
    let keys = set.get("keys")?.as_array()?;
    // Many issuers leave `alg` out.
    let for_signatures = |key: &Jwk| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    let usable = |key: &Jwk| for_signatures(key) && DecodingKey::from_jwk(key).is_ok();
    Some(keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).filter(usable).collect())
}

/// The key with this id; for a token that names none, the only one that there is.
fn find(keys: &[Jwk], id: Option<&str>) -> Option<Jwk> {
    match id {
        Some(id) => keys.iter().find(|key| key.common.key_id.as_deref() == Some(id)).cloned(),
        None if keys.len() == 1 => keys.first().cloned(),
        None => None,
    }
}

impl Keys {
    /// # Errors
    /// `InvalidArgument`, on `keys`, for what is no JWK set.
    pub(crate) fn inline(set: &Value) -> Result<Self> {
        let keys = read(set).filter(|keys| !keys.is_empty());
        keys.map(Self::Inline).ok_or_else(|| Error::invalid("keys", "must be a JWK set, {\"keys\": [...]}, with a key for signatures"))
    }

    /// # Errors
    /// `Internal` where TLS cannot be set up.
    pub(crate) fn fetched(url: &str) -> Result<Self> {
        Self::published(Place::Url(url.into()))
    }

    /// # Errors
    /// As [`Keys::fetched`].
    pub(crate) fn discovered(issuer: &str) -> Result<Self> {
        Self::published(Place::Issuer(issuer.into()))
    }

    fn published(place: Place) -> Result<Self> {
        let (http, known, in_vain) = (fetch::client()?, ArcSwapOption::empty(), Mutex::new(None));
        Ok(Self::Fetched(Fetched { place, http, known, in_vain }))
    }

    /// # Errors
    /// `Unauthenticated` the issuer has no such key · `Unavailable` its keys cannot be had.
    pub(crate) async fn key(&self, id: Option<&str>) -> Result<Jwk> {
        let unknown = || wrong("invalid_token", "the token is signed with a key that its issuer does not publish");
        match self {
            Self::Inline(keys) => find(keys, id).ok_or_else(unknown),
            Self::Fetched(fetched) => fetched.key(id).await?.ok_or_else(unknown),
        }
    }
}

impl Fetched {
    async fn key(&self, id: Option<&str>) -> Result<Option<Jwk>> {
        if let Some(key) = self.found(id, FRESH) {
            return Ok(Some(key));
        }
        let mut in_vain = self.in_vain.lock().await;
        // Somebody may have fetched it meanwhile.
        if let Some(key) = self.found(id, FRESH) {
            return Ok(Some(key));
        }
        if in_vain.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return match self.known.load().is_some() {
                true => Ok(self.found(id, STALE)),
                false => Err(Error::unavailable("the issuer's keys cannot be asked").with_reason("identity_unavailable")),
            };
        }
        let fetched = self.fetch().await;
        if let Ok(keys) = &fetched {
            self.known.store(Some(Arc::new(Known { keys: keys.clone(), since: Instant::now() })));
        }
        *in_vain = self.found(id, FRESH).is_none().then(Instant::now);
        match (self.found(id, STALE), fetched) {
            (None, Err(error)) => Err(error),
            (key, Err(error)) => {
                tracing::warn!(error = ?error, "an issuer's keys could not be fetched again; the old ones count");
                Ok(key)
            }
            (key, Ok(_)) => Ok(key),
        }
    }

    fn found(&self, id: Option<&str>, at_most: Duration) -> Option<Jwk> {
        let known = self.known.load();
        known.as_ref().filter(|known| known.since.elapsed() < at_most).and_then(|known| find(&known.keys, id))
    }

    async fn fetch(&self) -> Result<Vec<Jwk>> {
        let url = match &self.place {
            Place::Url(url) => url.clone(),
            // Each time, since it may move them.
            Place::Issuer(issuer) => self.discover(issuer).await?,
        };
        let set = fetch::json(self.http.get(&url), "the issuer's keys").await?;
        read(&set).ok_or_else(|| Error::unavailable("the issuer's keys are no JWK set").with_reason("identity_unavailable"))
    }

    /// Where an issuer says that its keys are.
    async fn discover(&self, issuer: &str) -> Result<String> {
        let failed = |why: &str| {
            let message = "the issuer does not say where its keys are: name jwks_url";
            Error::unavailable(message).with_reason("identity_unavailable").with_source(why)
        };
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let said = fetch::json(self.http.get(&url), "the issuer").await?;
        // Else one issuer could speak of another's keys.
        if said.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(failed("its configuration is another issuer's"));
        }
        let keys = said.get("jwks_uri").and_then(Value::as_str).ok_or_else(|| failed("its configuration has no jwks_uri"))?;
        if issuer.starts_with("https://") && !keys.starts_with("https://") {
            return Err(failed("its keys would come without TLS"));
        }
        Ok(keys.to_owned())
    }
}
