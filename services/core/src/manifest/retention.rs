use std::collections::BTreeMap;

use serde::Deserialize;

use super::Lines;
use crate::Result;

/// How long what people leave here is kept. Default: until somebody deletes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days after which a session, which is also a Conversation or a chain of Responses, is deleted with its turns if nothing was
    /// said in it. Default 0: never.
    pub sessions_days: u32,
    /// Days after its upload that a file is deleted, if it does not say itself that it ends earlier. Default 0: never.
    pub files_days: u32,
    /// Days after its making that a batch which has ended is forgotten; its files go by `files_days`. Default 0: never.
    pub batches_days: u32,
    /// Of these tenants, in place of the above: each that is named.
    pub tenants: BTreeMap<String, TenantRetention>,
}

/// How long what the people of one tenant leave here is kept. What is not there is as for all; 0: for ever.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantRetention {
    pub sessions_days: Option<u32>,
    pub files_days: Option<u32>,
    pub batches_days: Option<u32>,
}

/// Ten years: what is longer is a mistake.
const MOST: u32 = 3_650;

impl Retention {
    /// Days of sessions, of files and of batches, of one tenant or (none) of those that are not named.
    pub fn of(&self, tenant: Option<&str>) -> [u32; 3] {
        let own = tenant.and_then(|tenant| self.tenants.get(tenant)).copied().unwrap_or_default();
        [
            own.sessions_days.unwrap_or(self.sessions_days),
            own.files_days.unwrap_or(self.files_days),
            own.batches_days.unwrap_or(self.batches_days),
        ]
    }

    /// Whether everything stays.
    pub fn is_none(&self) -> bool {
        self.of(None) == [0; 3] && self.tenants.keys().all(|tenant| self.of(Some(tenant)) == [0; 3])
    }

    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        check("retention", self.of(None), lines)?;
        self.tenants.keys().try_for_each(|tenant| check(&format!("retention.tenants.{tenant}"), self.of(Some(tenant)), lines))
    }
}

fn check(path: &str, days: [u32; 3], lines: &Lines) -> Result<()> {
    for (name, days) in ["sessions_days", "files_days", "batches_days"].into_iter().zip(days) {
        if days > MOST {
            return Err(lines.error(&format!("{path}.{name}"), &format!("is {days}; it must be at most {MOST}, or 0 for ever")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::Manifest;

    fn read(retention: &str) -> crate::Result<Manifest> {
        Manifest::parse(&format!("version: 1\nname: t\nretention:\n{retention}"), "m.yaml")
    }

    #[test]
    fn a_tenant_has_what_is_said_of_it_and_else_what_holds_for_all() {
        let retention =
            read("  sessions_days: 90\n  tenants:\n    acme: { files_days: 7 }\n    law: { sessions_days: 0 }\n").unwrap().retention;
        let of = |tenant| retention.of(tenant);
        assert_eq!([of(None), of(Some("acme")), of(Some("law")), of(Some("other"))], [[90, 0, 0], [90, 7, 0], [0; 3], [90, 0, 0]]);
        assert!(!retention.is_none() && read("  tenants: { acme: {} }\n").unwrap().retention.is_none());
        let error = read("  tenants:\n    acme: { sessions_days: 4000 }\n").unwrap_err();
        assert!(error.message().starts_with("m.yaml:5: retention.tenants.acme.sessions_days: is 4000"), "{}", error.message());
    }
}
