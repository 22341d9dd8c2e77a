//! Tokens that say nothing by themselves: their authorisation server is asked (RFC 7662).

use std::time::{Duration, Instant};

use llama_stack_core::{
    Authenticated, Result,
    manifest::{self, Claims},
};
use quick_cache::sync::Cache;
use serde_json::Value;

use crate::{authenticator::wrong, claims, fetch, secret};

/// Tokens whose answers are kept.
const KEPT: usize = 4_096;

pub(crate) struct Introspection {
    config: manifest::Introspection,
    claims: Claims,
    http: reqwest::Client,
    /// A token's hash → who it is of, and until when that counts. Only of tokens that are good.
    kept: Cache<String, (Authenticated, Instant)>,
}

impl Introspection {
    /// # Errors
    /// `Internal` where TLS cannot be set up.
    pub(crate) fn new(config: &manifest::Introspection) -> Result<Self> {
        Ok(Self { claims: config.claims.clone(), config: config.clone(), http: fetch::client()?, kept: Cache::new(KEPT) })
    }

    /// # Errors
    /// `Unauthenticated` the server does not say that the token is active · `Unavailable` it cannot be asked.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<Authenticated> {
        let hash = secret::hash(token);
        if let Some((who, until)) = self.kept.get(&hash)
            && until > Instant::now()
        {
            return Ok(who);
        }
        // Both are written as in a form before they are joined by a colon (RFC 6749, 2.3.1).
        let (id, secret) = (escaped(&self.config.client_id), escaped(self.config.client_secret.expose()));
        let asked = self.http.post(&self.config.url).basic_auth(id, Some(secret));
        let body = format!("token={}", escaped(token));
        let asked = asked.header("content-type", "application/x-www-form-urlencoded").header("accept", "application/json").body(body);
        let said = fetch::json(asked, "the authorisation server").await?;
        if said.get("active").and_then(Value::as_bool) != Some(true) {
            return Err(wrong("invalid_token", "the token is not active"));
        }
        if !self.is_for_us(&said) {
            return Err(wrong("invalid_token", "the token does not count: it is for another audience"));
        }
        let who = claims::authenticated(&self.claims, &said, "introspection")?;
        let now = llama_stack_core::ids::now().seconds;
        // A NumericDate may have a fraction (RFC 7519, 2).
        let end = said.get("exp").and_then(|end| end.as_i64().or_else(|| end.as_f64().map(|end| end as i64)));
        let left = end.map_or(u64::MAX, |end| u64::try_from(end.saturating_sub(now)).unwrap_or(0));
        if left == 0 {
            return Err(wrong("invalid_token", "the token does not count: it has expired"));
        }
        let kept = Duration::from_secs(left.min(self.config.cache_seconds).min(3600));
        self.kept.insert(hash, (who.clone(), Instant::now() + kept));
        Ok(who)
    }

    fn is_for_us(&self, said: &Value) -> bool {
        let ours = |one: &Value| one.as_str().is_some_and(|one| self.config.audience.iter().any(|ours| ours == one));
        let named = match said.get("aud") {
            Some(Value::Array(several)) => several.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        self.config.audience.is_empty() || named
    }
}

/// For a form.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
