use std::collections::BTreeMap;

use serde::Deserialize;

use llama_stack_proto::v1;

use super::Lines;
use crate::{Error, Result, context::KEY};

/// How much may be asked of this stack, and by whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that this process answers at once; one more is refused at once. Default 2,048.
    pub max_in_flight: usize,
    /// Of each tenant, all its callers together.
    pub each_tenant: Quota,
    /// Of each caller.
    pub each_principal: Quota,
    /// Of these tenants, in place of `each_tenant`.
    pub tenants: BTreeMap<String, Quota>,
    /// Of these callers, in place of `each_principal`: `tenant/principal`.
    pub principals: BTreeMap<String, Quota>,
    /// Of each API key that was made without limits of its own.
    pub each_key: Quota,
    /// Of these API keys, by their ids, in place of `each_key` and of what they were made with.
    pub keys: BTreeMap<String, Quota>,
}

/// What is not there is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// In this process; with Postgres, in all that share it.
    pub requests_per_minute: Option<u32>,
    /// Read and written, of all models, in as many processes. A request is let in while there are any left, and what it takes is counted afterwards.
    pub tokens_per_minute: Option<u32>,
    /// Requests whose answers are not done.
    pub concurrent_requests: Option<u32>,
    /// Turns that run in this process, watched or not; one that waits for a client or a person does not count.
    pub concurrent_turns: Option<u32>,
    /// In a day of UTC, in all processes that share the store.
    pub tokens_per_day: Option<u64>,
    /// The same, by `agents.prices`.
    pub cost_per_day: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        let none = Quota::default;
        let (tenants, principals, keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { max_in_flight: 2_048, each_tenant: none(), each_principal: none(), tenants, principals, each_key: none(), keys }
    }
}

impl Quota {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether what was used has to be known after a restart.
    pub fn is_durable(&self) -> bool {
        self.tokens_per_day.is_some() || self.cost_per_day.is_some()
    }

    /// What a key was made with.
    ///
    /// # Errors
    /// `InvalidArgument`, on the field below `quota`.
    pub fn checked(quota: &v1::Quota) -> Result<Self> {
        let quota = Self::from(quota);
        match quota.fault() {
            Some((name, what)) => Err(Error::invalid(format!("quota.{name}"), format!("quota.{name} {what}"))),
            None => Ok(quota),
        }
    }

    /// The field that is wrong, and what it must be.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let counts = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("concurrent_requests", self.concurrent_requests),
            ("concurrent_turns", self.concurrent_turns),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Some((name, "must be at least 1; leave it out for no limit"));
        }
        let is_no_cost = |cost: f64| !cost.is_finite() || cost < 0.0;
        self.cost_per_day.is_some_and(is_no_cost).then_some(("cost_per_day", "must be 0 or more"))
    }

    fn validate(&self, path: &str, lines: &Lines) -> Result<()> {
        self.fault().map_or(Ok(()), |(name, what)| Err(lines.error(&format!("{path}.{name}"), what)))
    }
}

impl From<&v1::Quota> for Quota {
    fn from(quota: &v1::Quota) -> Self {
        let v1::Quota { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day } =
            *quota;
        Self { requests_per_minute, tokens_per_minute, concurrent_requests, concurrent_turns, tokens_per_day, cost_per_day }
    }
}

impl Limits {
    /// Whether anybody is limited.
    pub fn has_quotas(&self) -> bool {
        let each = [self.each_tenant, self.each_principal, self.each_key];
        let named = [&self.tenants, &self.principals, &self.keys];
        each.iter().any(|quota| !quota.is_none()) || named.iter().any(|named| !named.is_empty())
    }

    /// Of the API key with this id, which was made with `own`.
    pub fn of_key(&self, id: &str, own: Quota) -> Quota {
        let of_itself = || if own.is_none() { self.each_key } else { own };
        self.keys.get(id).copied().unwrap_or_else(of_itself)
    }

    pub fn of_tenant(&self, tenant: &str) -> Quota {
        *self.tenants.get(tenant).unwrap_or(&self.each_tenant)
    }

    pub fn of_principal(&self, tenant: &str, principal: &str) -> Quota {
        // Nobody builds a name for a table that is empty.
        let named = (!self.principals.is_empty()).then(|| self.principals.get(&format!("{tenant}/{principal}"))).flatten();
        *named.unwrap_or(&self.each_principal)
    }

    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        if self.max_in_flight == 0 {
            return Err(lines.error("limits.max_in_flight", "must be at least 1"));
        }
        self.each_tenant.validate("limits.each_tenant", lines)?;
        self.each_principal.validate("limits.each_principal", lines)?;
        for (tenant, quota) in &self.tenants {
            quota.validate(&format!("limits.tenants.{tenant}"), lines)?;
        }
        for (principal, quota) in &self.principals {
            let path = format!("limits.principals.{principal}");
            if !principal.contains('/') {
                return Err(lines.error(&path, "must be named tenant/principal"));
            }
            quota.validate(&path, lines)?;
        }
        self.each_key.validate("limits.each_key", lines)?;
        for (key, quota) in &self.keys {
            let path = format!("limits.keys.{key}");
            if !key.starts_with(KEY) {
                return Err(lines.error(&path, "must be an API key's id, key_…, as `llama-stack key list` tells it"));
            }
            quota.validate(&path, lines)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn read(limits: &str) -> Result<Limits> {
        Manifest::parse(&format!("version: 1\nname: t\nlimits:\n{limits}"), "m.yaml").map(|manifest| manifest.limits)
    }

    #[test]
    fn a_key_has_what_is_said_of_it_else_what_it_was_made_with_else_what_each_has() {
        let limits = read("  each_key: { requests_per_minute: 5 }\n  keys: { key_1: { tokens_per_day: 9 }, key_2: {} }\n").unwrap();
        let own = Quota { concurrent_turns: Some(2), ..Quota::default() };
        assert_eq!((limits.of_key("key_3", own), limits.of_key("key_3", Quota::default())), (own, limits.each_key));
        assert_eq!(limits.of_key("key_1", own), Quota { tokens_per_day: Some(9), ..Quota::default() });
        assert!(limits.of_key("key_2", own).is_none() && limits.has_quotas());
    }

    #[test]
    fn a_wrong_quota_is_refused_with_its_place() {
        let message = |limits: &str| read(limits).map(drop).unwrap_err().message().to_owned();
        assert!(message("  keys: { ann: {} }\n").contains("limits.keys.ann: must be an API key's id"));
        assert!(message("  each_key: { concurrent_turns: 0 }\n").contains("limits.each_key.concurrent_turns: must be at least 1"));
        let quota = v1::Quota { cost_per_day: Some(f64::NAN), ..v1::Quota::default() };
        assert_eq!(Quota::checked(&quota).unwrap_err().field(), Some("quota.cost_per_day"));
    }
}
