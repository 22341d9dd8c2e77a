//! On whose behalf a batch runs. Asked again for every line, since a batch may outlive what its maker was allowed.

use llama_stack_core::{
    Authenticated, Code, Context, Error, Principal, Priority, Result,
    context::{DELEGATE, KEY},
    ids,
    manifest::Quota,
};
use llama_stack_proto::v1::Caller;
use llama_stack_store::Store;

/// The caller of a request, to be kept beside the batch.
pub(crate) fn of(cx: &Context) -> Caller {
    let Principal { id, tenant, roles } = cx.principal().clone();
    let attributes = cx.attributes().clone().into_iter().collect();
    Caller { principal: id, tenant, roles, attributes, credential: cx.credential().into() }
}

/// As the batch was made: for its files.
pub(crate) fn as_made(author: &Caller) -> Context {
    asking(&made_by(author))
}

fn made_by(author: &Caller) -> Authenticated {
    Authenticated {
        principal: Principal { id: author.principal.clone(), tenant: author.tenant.clone(), roles: author.roles.clone() },
        attributes: author.attributes.clone().into_iter().collect(),
        credential: author.credential.clone(),
        ..Authenticated::default()
    }
}

fn asking(who: &Authenticated) -> Context {
    Context::default().with_authenticated(who).with_priority(Priority::Batch)
}

/// As its maker is now: what the key says today. Of a token or a certificate nothing more is known than when it was shown.
///
/// # Errors
/// `Unauthenticated` the key is revoked or has expired (`invalid_api_key`) · as the store.
pub(crate) async fn today(store: &Store, author: &Caller) -> Result<Context> {
    let made = made_by(author);
    let delegate = author.credential.strip_prefix(DELEGATE);
    let shown = delegate.unwrap_or(&author.credential);
    if !shown.starts_with(KEY) {
        return Ok(asking(&made));
    }
    let ended = || {
        let message = "the API key that this batch was made with is revoked or has expired";
        Error::new(Code::Unauthenticated, message).with_reason("invalid_api_key")
    };
    let key = store.api_key_record(shown).await?.map(|record| record.key).ok_or_else(ended)?;
    let now = ids::now();
    let is_over = key.expires.is_some_and(|end| (end.seconds, end.nanos) <= (now.seconds, now.nanos));
    if key.revoked.is_some() || is_over {
        return Err(ended());
    }
    let quota = key.quota.as_ref().map(Quota::from).unwrap_or_default();
    if delegate.is_some() {
        return Ok(asking(&Authenticated { quota, key_tenant: Some(key.tenant), ..made }));
    }
    let principal = Principal { id: key.principal, tenant: key.tenant, roles: key.roles };
    Ok(asking(&Authenticated { principal, attributes: key.attributes.into_iter().collect(), credential: key.id, quota, key_tenant: None }))
}
