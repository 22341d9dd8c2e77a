use std::collections::BTreeMap;

use serde::Deserialize;

use super::Lines;
use crate::Result;

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
        Self { max_in_flight: 2_048, each_tenant: none(), each_principal: none(), tenants: BTreeMap::new(), principals: BTreeMap::new() }
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

    fn validate(&self, path: &str, lines: &Lines) -> Result<()> {
        let counts = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("concurrent_requests", self.concurrent_requests),
            ("concurrent_turns", self.concurrent_turns),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(lines.error(&format!("{path}.{name}"), "must be at least 1; leave it out for no limit"));
        }
        if self.cost_per_day.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
            return Err(lines.error(&format!("{path}.cost_per_day"), "must be 0 or more"));
        }
        Ok(())
    }
}

impl Limits {
    /// Whether anybody is limited.
    pub fn has_quotas(&self) -> bool {
        !self.each_tenant.is_none() || !self.each_principal.is_none() || !self.tenants.is_empty() || !self.principals.is_empty()
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
        Ok(())
    }
}
