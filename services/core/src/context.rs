//! Who asks, until when, under which key and in which trace: the first argument of every call.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::{Code, Error, EventStream, Result, manifest::Quota};

/// The tenant of callers that name none.
pub const DEFAULT_TENANT: &str = "default";

/// How long a provider may take to say what it has, where nobody waits for just this one.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What API keys' ids begin with; the other kinds of credentials are words.
pub const KEY: &str = "key_";
/// Before the credential of one who speaks for another.
pub const DELEGATE: &str = "delegate:";

const PRINCIPAL: &str = "x-llama-stack-principal";
const TENANT: &str = "x-llama-stack-tenant";
const ROLES: &str = "x-llama-stack-roles";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REQUEST_ID: &str = "x-request-id";
const TRACE: &str = "traceparent";
const PROVIDER_KEY: &str = "x-llama-stack-provider-key";
const PRIORITY: &str = "x-llama-stack-priority";
const TIMEOUT: &str = "grpc-timeout";

/// Cheap to clone: everything is behind one `Arc`.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Clone, Debug, Default)]
struct Inner {
    principal: Principal,
    deadline: Option<Instant>,
    idempotency_key: Option<String>,
    request_id: Option<String>,
    trace: Option<String>,
    /// What the credential says beside the principal.
    attributes: BTreeMap<String, String>,
    /// Which credential it was: an API key's id, or its kind.
    credential: String,
    /// What the credential limits. Never read from a request.
    quota: Quota,
    /// As [`Authenticated::key_tenant`].
    key_tenant: Option<String>,
    /// What this process shows to the stack that it calls. Never read from a request, so never a caller's.
    bearer: Option<Secret>,
    /// Who asks is not told to whoever is called.
    nameless: bool,
    priority: Priority,
    /// Provider id → the caller's own key there. Read at the edge, used by the provider, never sent on or logged.
    provider_keys: Vec<(String, Secret)>,
}

/// How urgent a call is: where not all can run at once, interactive ones go first, until the others have waited for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// It is done some time within hours.
    Batch,
}

/// On whose behalf a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A user or service; `anonymous` where nobody was named.
    pub id: String,
    /// Whose data it is. Rows, banks and caches of different tenants never meet.
    pub tenant: String,
    pub roles: Vec<String>,
}

/// Who a request was found to come from. The edge leaves it in the request's extensions, where it outweighs all headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authenticated {
    pub principal: Principal,
    /// What else the credential says, for policies.
    pub attributes: BTreeMap<String, String>,
    /// An API key's id, or `jwt`, `introspection`, `certificate`; empty where none was shown.
    pub credential: String,
    /// What an API key was made with.
    pub quota: Quota,
    /// The tenant that an API key is of, where its holder speaks for another. None: the principal's.
    pub key_tenant: Option<String>,
}

/// An API key that was shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShownKey<'a> {
    pub id: &'a str,
    /// Its own, whomever its holder speaks for.
    pub tenant: &'a str,
    /// What it was made with.
    pub quota: Quota,
}

impl Default for Principal {
    fn default() -> Self {
        Self { id: "anonymous".into(), tenant: DEFAULT_TENANT.into(), roles: Vec::new() }
    }
}

/// A value that does not show itself.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new(Principal::default())
    }
}

impl Context {
    pub fn new(principal: Principal) -> Self {
        Self(Arc::new(Inner { principal, ..Inner::default() }))
    }

    /// The stack itself, at start-up and in the background.
    pub fn system() -> Self {
        Self::new(Principal { id: "system".into(), ..Principal::default() })
    }

    /// The stack itself, when it looks who is there: until [`PATIENCE`] ends.
    pub fn probing() -> Self {
        Self::system().with_timeout(PATIENCE)
    }

    /// The stack itself, on behalf of a tenant.
    pub fn system_for(tenant: &str) -> Self {
        Self::new(Principal { id: "system".into(), tenant: tenant.into(), roles: Vec::new() })
    }

    /// A caller in a test.
    pub fn test(tenant: &str) -> Self {
        Self::new(Principal { id: "tester".into(), tenant: tenant.into(), roles: Vec::new() })
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let deadline = Instant::now().checked_add(timeout);
        self.edit(|inner| inner.deadline = deadline)
    }

    #[must_use]
    pub fn with_idempotency_key(self, key: impl Into<String>) -> Self {
        self.edit(|inner| inner.idempotency_key = Some(key.into()))
    }

    #[must_use]
    pub fn with_request_id(self, id: impl Into<String>) -> Self {
        self.edit(|inner| inner.request_id = Some(id.into()))
    }

    #[must_use]
    pub fn with_trace(self, traceparent: impl Into<String>) -> Self {
        self.edit(|inner| inner.trace = Some(traceparent.into()))
    }

    /// Shows this credential to the stack that is called.
    #[must_use]
    pub fn with_bearer(self, bearer: Secret) -> Self {
        self.edit(|inner| inner.bearer = Some(bearer))
    }

    /// Goes out without principal, tenant and roles.
    #[must_use]
    pub(crate) fn nameless(self) -> Self {
        self.edit(|inner| inner.nameless = true)
    }

    /// The same call, made by whoever was authenticated.
    #[must_use]
    pub fn with_authenticated(self, who: &Authenticated) -> Self {
        self.edit(|inner| {
            inner.principal = who.principal.clone();
            inner.attributes = who.attributes.clone();
            inner.credential.clone_from(&who.credential);
            inner.quota = who.quota;
            inner.key_tenant.clone_from(&who.key_tenant);
        })
    }

    /// Charged to this API key too, for a caller that is known already.
    #[must_use]
    pub fn with_key(self, key: ShownKey<'_>) -> Self {
        self.edit(|inner| {
            inner.credential = key.id.to_owned();
            inner.quota = key.quota;
            inner.key_tenant = Some(key.tenant.to_owned());
        })
    }

    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        self.edit(|inner| inner.priority = priority)
    }

    /// For work that outlives the call that began it: same caller and trace, no deadline, no key.
    #[must_use]
    pub fn detached(&self) -> Self {
        self.clone().edit(|inner| {
            inner.deadline = None;
            inner.idempotency_key = None;
        })
    }

    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    pub fn tenant(&self) -> &str {
        &self.0.principal.tenant
    }

    /// What the caller's credential says beside the principal, for policies.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.0.attributes
    }

    /// The API key's id, or the kind of credential; empty where none was shown.
    pub fn credential(&self) -> &str {
        &self.0.credential
    }

    /// The API key that was shown, by a delegate or the caller.
    pub fn key(&self) -> Option<ShownKey<'_>> {
        let credential = self.credential();
        let id = credential.strip_prefix(DELEGATE).unwrap_or(credential);
        let tenant = self.0.key_tenant.as_deref().unwrap_or(self.tenant());
        id.starts_with(KEY).then_some(ShownKey { id, tenant, quota: self.0.quota })
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    pub fn idempotency_key(&self) -> Option<&str> {
        self.0.idempotency_key.as_deref()
    }

    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// A W3C `traceparent`.
    pub fn trace(&self) -> Option<&str> {
        self.0.trace.as_deref()
    }

    /// The caller's own key at a provider: header `x-llama-stack-provider-key: <provider id>=<key>`.
    pub fn provider_key(&self, provider_id: &str) -> Option<&Secret> {
        self.0.provider_keys.iter().find(|(id, _)| id == provider_id).map(|(_, key)| key)
    }

    /// Waits for `work`, at most until the deadline. Where that has passed already, `work` is not begun.
    ///
    /// # Errors
    /// `DeadlineExceeded`, or the error of `work`.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(deadline) = self.deadline() else { return work.await };
        if deadline <= Instant::now() {
            return Err(deadline_passed());
        }
        tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(deadline_passed()))
    }

    /// Ends the stream with `DeadlineExceeded` when the deadline passes; costs nothing where there is none.
    pub fn until_deadline<T: Send + 'static>(&self, events: EventStream<T>) -> EventStream<T> {
        let Some(deadline) = self.deadline() else { return events };
        let passed = || Error::new(Code::DeadlineExceeded, "the deadline passed before the answer was done");
        Box::pin(futures::stream::unfold(Some(events), move |events| async move {
            let mut events = events?;
            match tokio::time::timeout_at(deadline.into(), events.next()).await {
                Ok(Some(event)) => Some((event, Some(events))),
                Ok(None) => None,
                Err(_) => Some((Err(passed()), None)),
            }
        }))
    }

    /// [`Context::from_metadata`]; where the edge has authenticated the caller, what the headers say of them does not count.
    ///
    /// # Errors
    /// As [`Context::from_metadata`].
    pub fn from_request(metadata: &MetadataMap, extensions: &http::Extensions) -> Result<Self> {
        let context = Self::from_metadata(metadata)?;
        Ok(match extensions.get::<Authenticated>() {
            Some(who) => context.with_authenticated(who),
            None => context,
        })
    }

    /// Reads what a caller sent: gRPC metadata, or HTTP headers under the same names.
    ///
    /// # Errors
    /// `InvalidArgument` for a tenant or principal that [`named`] refuses, for one that came twice, and for a time-out or a key that
    /// cannot be read.
    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self> {
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let mut inner = Inner::default();
        if let Some(tenant) = single(metadata, TENANT)? {
            inner.principal.tenant = named(TENANT, tenant)?;
        }
        if let Some(principal) = single(metadata, PRINCIPAL)? {
            inner.principal.id = named(PRINCIPAL, principal)?;
        }
        if let Some(roles) = single(metadata, ROLES)? {
            inner.principal.roles = roles.split(',').map(str::trim).filter(|role| !role.is_empty()).map(Into::into).collect();
        }
        if let Some(timeout) = text(TIMEOUT) {
            inner.deadline = Instant::now().checked_add(parse_timeout(timeout)?);
        }
        let key = single(metadata, IDEMPOTENCY_KEY)?.filter(|key| !key.is_empty());
        if key.is_some_and(|key| key.len() > 256) {
            return Err(Error::invalid(IDEMPOTENCY_KEY, format!("{IDEMPOTENCY_KEY} is longer than 256 bytes")));
        }
        inner.idempotency_key = key.map(Into::into);
        inner.request_id = text(REQUEST_ID).map(Into::into);
        inner.trace = text(TRACE).map(Into::into);
        inner.priority = match text(PRIORITY) {
            None | Some("interactive") => Priority::Interactive,
            Some("batch") => Priority::Batch,
            Some(_) => return Err(Error::invalid(PRIORITY, format!("{PRIORITY} must be interactive or batch"))),
        };
        for value in metadata.get_all(PROVIDER_KEY) {
            if let Some((id, key)) = value.to_str().ok().and_then(|value| value.split_once('=')) {
                inner.provider_keys.push((id.trim().into(), Secret::new(key.trim())));
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Writes what another process needs to know: all but the provider keys, which belong to this one.
    pub fn write_metadata(&self, metadata: &mut MetadataMap) {
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = value.parse::<MetadataValue<Ascii>>() {
                metadata.insert(name, value);
            }
        };
        if let Some(bearer) = &self.0.bearer {
            put("authorization", &format!("Bearer {}", bearer.expose()));
        }
        if !self.0.nameless {
            put(PRINCIPAL, &self.principal().id);
            put(TENANT, self.tenant());
            if !self.principal().roles.is_empty() {
                put(ROLES, &self.principal().roles.join(","));
            }
        }
        for (name, value) in [(IDEMPOTENCY_KEY, self.idempotency_key()), (REQUEST_ID, self.request_id()), (TRACE, self.trace())] {
            if let Some(value) = value {
                put(name, value);
            }
        }
        if self.priority() == Priority::Batch {
            put(PRIORITY, "batch");
        }
    }
}

pub(crate) fn deadline_passed() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the call was done")
}

/// What must not be passed over where it cannot be read, nor be one of two: a proxy may have added its own to a client's.
fn single<'a>(metadata: &'a MetadataMap, name: &str) -> Result<Option<&'a str>> {
    let mut values = metadata.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Error::invalid(name, format!("{name} must be printable ASCII"))),
        (Some(_), Some(_)) => Err(Error::invalid(name, format!("{name} came more than once"))),
    }
}

/// The name of a tenant, principal or role, if it can be one.
///
/// # Errors
/// `InvalidArgument`, on `field`, for what is not 1 to 128 of `[A-Za-z0-9_.@:|+-]`.
pub fn named(field: &str, value: &str) -> Result<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@:|+-".contains(c);
    if value.is_empty() || value.len() > 128 || !value.chars().all(allowed) {
        return Err(Error::invalid(field, format!("{field} must be 1 to 128 of letters, digits and _ . @ : | + -")));
    }
    Ok(value.into())
}

/// gRPC's `Timeout`: at most 8 digits and a unit.
/// Source: the "gRPC over HTTP2" protocol description.
fn parse_timeout(text: &str) -> Result<Duration> {
    let bad = || Error::invalid(TIMEOUT, format!("{TIMEOUT} must be 1 to 8 digits and one of H M S m u n"));
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let count: u64 = digits.parse().map_err(|_| bad())?;
    Ok(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_round_trip() {
        let principal = Principal { id: "ann".into(), tenant: "acme".into(), roles: vec!["admin".into(), "dev".into()] };
        let cx = Context::new(principal)
            .with_idempotency_key("k1")
            .with_request_id("r1")
            .with_trace("00-aa-bb-01")
            .with_priority(Priority::Batch);
        let mut metadata = MetadataMap::new();
        cx.write_metadata(&mut metadata);
        metadata.insert(TIMEOUT, "250m".parse().unwrap());
        let back = Context::from_metadata(&metadata).unwrap();
        assert_eq!(back.principal(), cx.principal());
        assert_eq!((back.idempotency_key(), back.request_id(), back.trace()), (Some("k1"), Some("r1"), Some("00-aa-bb-01")));
        assert!(back.deadline().unwrap() <= Instant::now() + Duration::from_millis(250));
        assert_eq!(back.priority(), Priority::Batch);
    }

    #[tokio::test]
    async fn work_is_not_begun_after_its_deadline() {
        let cx = Context::test("a").with_timeout(Duration::ZERO);
        let mut begun = false;
        let work = async {
            begun = true;
            Ok(())
        };
        assert_eq!(cx.within(work).await.unwrap_err().code(), Code::DeadlineExceeded);
        assert!(!begun);
    }

    #[test]
    fn a_crooked_tenant_is_refused() {
        let mut metadata = MetadataMap::new();
        metadata.insert(TENANT, "a/../b".parse().unwrap());
        assert_eq!(Context::from_metadata(&metadata).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn what_says_who_it_is_is_neither_guessed_nor_passed_over() {
        for name in [TENANT, PRINCIPAL, ROLES, IDEMPOTENCY_KEY] {
            let mut twice = MetadataMap::new();
            twice.append(name, "acme".parse().unwrap());
            assert!(Context::from_metadata(&twice).is_ok(), "{name}");
            twice.append(name, "umbrella".parse().unwrap());
            let mut odd = http::HeaderMap::new();
            odd.insert(name, http::HeaderValue::from_bytes("acm\u{e9}".as_bytes()).unwrap());
            for metadata in [twice, MetadataMap::from_headers(odd)] {
                assert_eq!(Context::from_metadata(&metadata).unwrap_err().field(), Some(name));
            }
        }
        let mut long = MetadataMap::new();
        long.insert(IDEMPOTENCY_KEY, "k".repeat(257).parse().unwrap());
        assert_eq!(Context::from_metadata(&long).unwrap_err().field(), Some(IDEMPOTENCY_KEY));
    }

    #[test]
    fn a_providers_key_stays_here() {
        let mut metadata = MetadataMap::new();
        metadata.insert(PROVIDER_KEY, "openai=sk-1".parse().unwrap());
        let cx = Context::from_metadata(&metadata).unwrap();
        assert_eq!(cx.provider_key("openai").unwrap().expose(), "sk-1");
        let mut sent = MetadataMap::new();
        cx.write_metadata(&mut sent);
        assert!(!format!("{sent:?}{cx:?}").contains("sk-1"));
    }
}
