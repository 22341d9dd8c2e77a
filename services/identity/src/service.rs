//! The `Identity` service: who calls, and the keys of a tenant.

use llama_stack_core::{Code, Context, Error, Identity, Principal, Result, context::named, ids, manifest::Quota};
use llama_stack_proto::v1::{
    ApiKey, Caller, CreateApiKeyRequest, GetApiKeyRequest, GetCallerRequest, HandOverRequest, HandOverResponse, IssuedApiKey,
    ListApiKeysRequest, ListApiKeysResponse, RevokeApiKeyRequest, RotateApiKeyRequest,
};
use llama_stack_store::Store;
use prost_types::Timestamp;

use crate::secret;

/// Who has this role acts for all tenants, so the admin of one must not be able to give it.
const OPERATOR: &str = "operator";
/// Roles of one key, and attributes.
const MANY: usize = 32;
/// Longest life of a rotated secret.
const GRACE: u64 = 30 * 24 * 60 * 60;
/// A hundred years: what is longer is a mistake, and overflows.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60;

/// The API keys of all tenants; each call sees those of its own.
pub struct ApiKeyBook {
    store: Store,
    /// Whether secrets are told at all.
    issues: bool,
    /// Roles that reach beyond a tenant: only an operator gives them.
    reserved: Vec<String>,
}

impl ApiKeyBook {
    pub fn new(store: Store) -> Self {
        Self { store, issues: true, reserved: vec![OPERATOR.to_owned()] }
    }

    /// These roles are an operator's to give as well: who has one of `server.auth.delegates` speaks for anybody, of any tenant.
    #[must_use]
    pub fn reserving(mut self, roles: &[String]) -> Self {
        self.reserved.extend_from_slice(roles);
        self
    }

    /// For a stack that does not ask who calls: whoever reaches it could make a key that counts once it does ask.
    pub fn without_issue(store: Store) -> Self {
        Self { issues: false, ..Self::new(store) }
    }

    /// A role of these that the caller, who is no operator, may not give.
    fn out_of_reach<'a>(&self, caller: &Principal, roles: &'a [String]) -> Option<&'a String> {
        if caller.roles.iter().any(|role| role == OPERATOR) { None } else { roles.iter().find(|role| self.reserved.contains(role)) }
    }

    fn may_issue(&self) -> Result<()> {
        if self.issues {
            return Ok(());
        }
        let message = "this stack does not tell callers apart, so it gives out no API keys; add server.auth to its manifest, and make the \
                       first key with llama-stack key create --offline";
        Err(Error::failed_precondition(message).with_reason("no_auth"))
    }
}

fn after(seconds: u64) -> Timestamp {
    let now = ids::now();
    Timestamp { seconds: now.seconds.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)), ..now }
}

/// Whether its time is over.
pub(crate) fn is_over(key: &ApiKey) -> bool {
    let now = ids::now();
    key.expires.is_some_and(|end| (end.seconds, end.nanos) <= (now.seconds, now.nanos))
}

/// A key of the request, for its principal or else the caller.
fn made(caller: &Principal, request: CreateApiKeyRequest) -> Result<ApiKey> {
    if request.name.chars().count() > 128 || request.name.chars().any(char::is_control) {
        return Err(Error::invalid("name", "name must be at most 128 characters on one line"));
    }
    let principal = if request.principal.is_empty() { caller.id.clone() } else { named("principal", &request.principal)? };
    if request.roles.len() > MANY || request.attributes.len() > MANY {
        let field = if request.roles.len() > MANY { "roles" } else { "attributes" };
        return Err(Error::invalid(field, format!("{field} must be at most {MANY}")));
    }
    let roles = request.roles.iter().enumerate().map(|(index, role)| named(&format!("roles[{index}]"), role)).collect::<Result<_>>()?;
    for (name, value) in &request.attributes {
        named("attributes", name)?;
        if value.len() > 256 {
            return Err(Error::invalid(format!("attributes.{name}"), format!("attributes.{name} must be at most 256 bytes")));
        }
    }
    if request.expires_after_seconds > LONGEST {
        return Err(Error::invalid("expires_after_seconds", format!("expires_after_seconds must be at most {LONGEST}; 0 is never")));
    }
    request.quota.as_ref().map(Quota::checked).transpose()?;
    Ok(ApiKey {
        id: ids::new("key"),
        name: request.name,
        tenant: caller.tenant.clone(),
        principal,
        roles,
        attributes: request.attributes,
        created_by: caller.id.clone(),
        created: Some(ids::now()),
        expires: (request.expires_after_seconds > 0).then(|| after(request.expires_after_seconds)),
        rotated: None,
        revoked: None,
        quota: request.quota,
    })
}

#[async_trait::async_trait]
impl Identity for ApiKeyBook {
    async fn get_caller(&self, cx: &Context, _request: GetCallerRequest) -> Result<Caller> {
        let who = cx.principal().clone();
        let attributes = cx.attributes().clone().into_iter().collect();
        Ok(Caller { principal: who.id, tenant: who.tenant, roles: who.roles, attributes, credential: cx.credential().into() })
    }

    async fn create_api_key(&self, cx: &Context, request: CreateApiKeyRequest) -> Result<IssuedApiKey> {
        self.may_issue()?;
        if let Some(role) = self.out_of_reach(cx.principal(), &request.roles) {
            let message = format!("only an operator makes keys with the role {role}: `llama-stack key create --offline` makes the first");
            return Err(Error::new(Code::PermissionDenied, message).with_field("roles").with_reason("not_authorized"));
        }
        let key = made(cx.principal(), request)?;
        let (secret, hash) = secret::issue(&key.id)?;
        self.store.insert_api_key(&key, &hash).await?;
        tracing::info!(key = key.id, tenant = key.tenant, principal = key.principal, by = key.created_by, "API key made");
        Ok(IssuedApiKey { key: Some(key), secret })
    }

    async fn get_api_key(&self, cx: &Context, request: GetApiKeyRequest) -> Result<ApiKey> {
        self.store.get_api_key(cx.tenant(), &checked(request.id)?).await
    }

    async fn list_api_keys(&self, cx: &Context, request: ListApiKeysRequest) -> Result<ListApiKeysResponse> {
        let (keys, next_page_token) = self.store.list_api_keys(cx.tenant(), request.page_size, &request.page_token).await?;
        Ok(ListApiKeysResponse { keys, next_page_token })
    }

    async fn rotate_api_key(&self, cx: &Context, request: RotateApiKeyRequest) -> Result<IssuedApiKey> {
        self.may_issue()?;
        if request.grace_seconds > GRACE {
            return Err(Error::invalid("grace_seconds", format!("grace_seconds must be at most {GRACE}, which is 30 days")));
        }
        let mut key = self.store.get_api_key(cx.tenant(), &checked(request.id)?).await?;
        if let Some(role) = self.out_of_reach(cx.principal(), &key.roles) {
            let message = format!("only an operator rotates a key with the role {role}");
            return Err(Error::new(Code::PermissionDenied, message).with_field("id").with_reason("not_authorized"));
        }
        if key.revoked.is_some() {
            let message = format!("API key {:?} is revoked; make another", key.id);
            return Err(Error::new(Code::FailedPrecondition, message).with_reason("api_key_revoked"));
        }
        if is_over(&key) {
            let message = format!("API key {:?} has expired, and another secret would be of no use; make another key", key.id);
            return Err(Error::new(Code::FailedPrecondition, message).with_reason("api_key_expired"));
        }
        let (secret, hash) = secret::issue(&key.id)?;
        key.rotated = Some(ids::now());
        self.store.rotate_api_key(&key, &hash, (request.grace_seconds > 0).then(|| after(request.grace_seconds))).await?;
        tracing::info!(key = key.id, tenant = key.tenant, by = cx.principal().id, "API key rotated");
        Ok(IssuedApiKey { key: Some(key), secret })
    }

    /// Idempotent.
    async fn revoke_api_key(&self, cx: &Context, request: RevokeApiKeyRequest) -> Result<ApiKey> {
        let mut key = self.store.get_api_key(cx.tenant(), &checked(request.id)?).await?;
        if key.revoked.is_none() {
            key.revoked = Some(ids::now());
            self.store.revoke_api_key(&key).await?;
            tracing::info!(key = key.id, tenant = key.tenant, by = cx.principal().id, "API key revoked");
        }
        Ok(key)
    }

    /// Idempotent.
    async fn hand_over(&self, cx: &Context, request: HandOverRequest) -> Result<HandOverResponse> {
        let to = named("to", &request.to)?;
        let (from, nobodys) = match request.from.as_str() {
            "" => (ANONYMOUS.to_owned(), true),
            from => (named("from", from)?, false),
        };
        if from == to {
            return Err(Error::invalid("to", format!("to is {to:?}, whose it is already")));
        }
        let count = self.store.hand_over(cx.tenant(), &from, &to, nobodys).await?;
        tracing::info!(tenant = cx.tenant(), from, to, count, by = cx.principal().id, "handed over");
        Ok(HandOverResponse { count })
    }
}

/// Whose things are who was not asked who they are.
const ANONYMOUS: &str = "anonymous";

/// An id that a database takes. One that is none of its own is not found there.
fn checked(id: String) -> Result<String> {
    if id.is_empty() || id.len() > 128 || id.contains('\0') {
        return Err(Error::invalid("id", "id must be an API key's id, key_…"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use llama_stack_core::manifest::Durability;

    use super::*;

    #[tokio::test]
    async fn a_key_that_has_expired_is_not_given_another_secret() {
        let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
        let (cx, now) = (Context::test("acme"), ids::now());
        let ends = |seconds: i64| Some(Timestamp { seconds: now.seconds + seconds, ..now });
        let key = |expires| ApiKey { id: ids::new("key"), tenant: "acme".into(), expires, ..ApiKey::default() };
        let (expired, good) = (key(ends(-1)), key(ends(3_600)));
        for key in [&expired, &good] {
            store.insert_api_key(key, "hash").await.unwrap();
        }
        let book = ApiKeyBook::new(store.clone());
        let rotate = async |id: &str| book.rotate_api_key(&cx, RotateApiKeyRequest { id: id.into(), grace_seconds: 0 }).await;
        let error = rotate(&expired.id).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("api_key_expired")));
        assert_eq!(store.api_key_record(&expired.id).await.unwrap().unwrap().hashes, ["hash"]);
        assert!(rotate(&good.id).await.unwrap().key.unwrap().rotated.is_some());
    }
}
