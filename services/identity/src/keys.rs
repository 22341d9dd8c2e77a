//! API keys of the store, as credentials.

use llama_stack_core::{Authenticated, Principal, Result, manifest::Quota};
use llama_stack_store::Store;

use crate::{authenticator::wrong, secret, service::is_over};

pub(crate) struct ApiKeys(pub(crate) Store);

impl ApiKeys {
    /// # Errors
    /// `Unauthenticated` no such key, another secret, revoked or expired: which of them is not told · as the store.
    pub(crate) async fn authenticate(&self, shown: &str) -> Result<Authenticated> {
        let refused = || wrong("invalid_api_key", "the API key is wrong, revoked or expired");
        let id = secret::key_id(shown).ok_or_else(refused)?;
        let record = self.0.api_key_record(&id).await?;
        // A key that is not there is compared too, so that time does not tell which ids there are.
        let hashes = record.as_ref().map(|record| record.hashes.clone()).filter(|hashes| !hashes.is_empty());
        let matches = hashes.unwrap_or_else(|| vec![String::new()]).iter().fold(false, |any, hash| secret::is(shown, hash) | any);
        let key = record.filter(|_| matches).ok_or_else(refused)?.key;
        if key.revoked.is_some() || is_over(&key) {
            return Err(refused());
        }
        Ok(Authenticated {
            principal: Principal { id: key.principal, tenant: key.tenant, roles: key.roles },
            attributes: key.attributes.into_iter().collect(),
            credential: key.id,
            quota: key.quota.as_ref().map(Quota::from).unwrap_or_default(),
            key_tenant: None,
        })
    }
}
