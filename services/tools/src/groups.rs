//! Tool groups that tenants register while the stack runs. They are in the store, so a restart keeps them and every replica
//! sees them; their providers are built from there, one set per tenant.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use llama_stack_core::{
    Code, Context, Deps, Error, Result, Table, Tools,
    directory::{Directory, every_item},
};
use llama_stack_proto::v1::{self, RegisterToolGroupRequest, ToolGroup};
use llama_stack_store::Store;
use serde_json::Value;

use crate::{name, router::ToolList};

/// How long what the store says of a tenant is believed: so long another replica's change may go unseen.
const FRESH: Duration = Duration::from_secs(2);
/// How long a new group may take to list its tools.
const LIST: Duration = Duration::from_secs(15);
/// Tenants whose providers are kept built; the one that was used longest ago gives way.
const MAX_TENANTS: usize = 1_000;

/// What registered groups are made of.
pub struct Groups {
    store: Store,
    types: Table<dyn Tools>,
    /// Those of `types` that callers may name.
    allowed: Vec<String>,
    deps: Deps,
    tenants: RwLock<HashMap<String, Known>>,
}

/// A tenant's groups, and when the store was asked for them. `None`: they have changed since.
type Known = (Option<Instant>, Arc<Tenant>);

/// A group, and its provider; none where it cannot be built any more.
type Group = (RegisterToolGroupRequest, Option<Arc<dyn Tools>>);

/// The groups of one tenant.
pub(crate) struct Tenant {
    /// In the order of registration.
    groups: Vec<Group>,
    pub(crate) directory: Directory<ToolList>,
}

impl Tenant {
    fn new(groups: Vec<Group>) -> Self {
        let built = groups.iter().filter_map(|(group, provider)| Some((group.id.clone(), provider.clone()?))).collect();
        Self { groups, directory: Directory::new(built) }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(group, _)| group.id.as_str())
    }
}

impl Groups {
    /// `allowed` are the provider types of `types` that callers may register.
    ///
    /// # Errors
    /// `InvalidArgument` on `tools.runtime_types[<index>]` for a type that there is not.
    pub fn new(store: Store, types: Table<dyn Tools>, allowed: Vec<String>, deps: Deps) -> Result<Self> {
        let there: Vec<&str> = types.types().collect();
        if let Some((at, name)) = allowed.iter().enumerate().find(|(_, name)| !there.contains(&name.as_str())) {
            let message = format!("no provider type {name:?} of tools; there is: {}", there.join(", "));
            return Err(Error::invalid(format!("tools.runtime_types[{at}]"), message));
        }
        Ok(Self { store, types, allowed, deps, tenants: RwLock::default() })
    }

    /// The caller's groups; `None` where the store does not say now, and did not before.
    pub(crate) async fn tenant(&self, cx: &Context) -> Option<Arc<Tenant>> {
        let known = self.tenants().get(cx.tenant()).cloned();
        let before = match known {
            Some((Some(asked), tenant)) if asked.elapsed() < FRESH => return Some(tenant),
            known => known.map(|(_, tenant)| tenant),
        };
        let rows = match cx.within(self.store.list_tool_groups(cx.tenant())).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(tenant = cx.tenant(), error = error.message(), "registered tool groups cannot be read");
                return before;
            }
        };
        let tenant = match before {
            Some(tenant) if tenant.groups.iter().map(|(group, _)| group).eq(&rows) => tenant,
            before => Arc::new(Tenant::new(self.build(cx.tenant(), rows, before.as_deref()).await)),
        };
        self.keep(cx.tenant(), (Some(Instant::now()), tenant.clone()));
        Some(tenant)
    }

    /// Those that were built before stay as they are, with their connections.
    async fn build(&self, tenant: &str, rows: Vec<RegisterToolGroupRequest>, before: Option<&Tenant>) -> Vec<Group> {
        let mut groups = Vec::with_capacity(rows.len());
        for row in rows {
            let there = before.and_then(|before| before.groups.iter().find(|(group, _)| *group == row));
            let provider = match there {
                Some((_, provider)) => provider.clone(),
                None => match self.provider(&row).await {
                    Ok(provider) => Some(provider),
                    Err(error) => {
                        tracing::warn!(tenant, group = row.id, error = error.message(), "a registered tool group is not served");
                        None
                    }
                },
            };
            groups.push((row, provider));
        }
        groups
    }

    async fn provider(&self, group: &RegisterToolGroupRequest) -> Result<Arc<dyn Tools>> {
        if !self.allowed.contains(&group.provider_type) {
            let allowed = if self.allowed.is_empty() { "none".to_owned() } else { self.allowed.join(", ") };
            let message = format!("{:?} may not be registered while the stack runs; the manifest allows: {allowed}", group.provider_type);
            return Err(Error::new(Code::PermissionDenied, message).with_field("provider_type"));
        }
        let config: Value = if group.config.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&group.config).map_err(|error| Error::invalid("config", format!("config is not valid JSON: {error}")))?
        };
        if !matches!(config, Value::Null | Value::Object(_)) {
            return Err(Error::invalid("config", "config must be a JSON object"));
        }
        let deps = Deps { provider_id: group.id.clone(), at_run_time: true, ..self.deps.clone() };
        self.types.build(&group.provider_type, config, deps).await
    }

    /// `there` is what the caller may use already.
    ///
    /// # Errors
    /// `InvalidArgument` for a crooked id or configuration · `PermissionDenied` for a type, or a way to run a program, that
    /// only the manifest may name · `AlreadyExists` for an id or a tool that there is · `Unavailable` and others where the
    /// group does not list its tools · `ResourceExhausted` for too many groups.
    pub(crate) async fn register(&self, cx: &Context, group: RegisterToolGroupRequest, there: &[v1::Tool]) -> Result<ToolGroup> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if group.id.is_empty() || group.id.len() > 64 || !group.id.chars().all(allowed) {
            return Err(Error::invalid("id", "id must be 1 to 64 of letters, digits, _ - and ."));
        }
        let provider = self.provider(&group).await?;
        let listing = tokio::time::timeout(LIST, every_item::<ToolList>(&*provider, cx));
        let slow = |_| Error::unavailable(format!("the group did not list its tools within {} s", LIST.as_secs()));
        let tools = cx.within(async { listing.await.map_err(slow)? }).await?;
        let taken = |tool: &&v1::Tool| there.iter().any(|other| other.group_id != group.id && name(other) == name(tool));
        if let Some(tool) = tools.iter().find(taken) {
            let message = format!("there is a tool {:?} already; a prefix in the group's config keeps the two apart", name(tool));
            return Err(Error::new(Code::AlreadyExists, message).with_field("config").with_reason("duplicate_tool"));
        }
        self.store.insert_tool_group(cx.tenant(), &group).await?;
        self.changed(cx.tenant(), Some((group.clone(), Some(provider))));
        let tool_names = tools.iter().map(|tool| name(tool).to_owned()).collect();
        Ok(ToolGroup { provider_id: group.id.clone(), id: group.id, tool_names })
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) async fn unregister(&self, cx: &Context, id: &str) -> Result<()> {
        self.store.delete_tool_group(cx.tenant(), id).await?;
        self.changed(cx.tenant(), None);
        Ok(())
    }

    /// The store is asked at the next use. What was built to check a new group serves on.
    fn changed(&self, tenant: &str, new: Option<Group>) {
        let mut tenants = self.tenants_mut();
        let Some((asked, known)) = tenants.get_mut(tenant) else { return };
        *asked = None;
        if let Some(new) = new {
            *known = Arc::new(Tenant::new(known.groups.iter().cloned().chain([new]).collect()));
        }
    }

    fn keep(&self, tenant: &str, known: Known) {
        let mut tenants = self.tenants_mut();
        if tenants.len() >= MAX_TENANTS && !tenants.contains_key(tenant) {
            let oldest = tenants.iter().min_by_key(|(_, (asked, _))| *asked).map(|(tenant, _)| tenant.clone());
            oldest.map(|oldest| tenants.remove(&oldest));
        }
        tenants.insert(tenant.to_owned(), known);
    }

    fn tenants(&self) -> RwLockReadGuard<'_, HashMap<String, Known>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tenants_mut(&self) -> RwLockWriteGuard<'_, HashMap<String, Known>> {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner)
    }
}
