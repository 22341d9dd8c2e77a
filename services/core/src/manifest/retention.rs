use std::collections::{BTreeMap, BTreeSet};

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
    pub tenants: BTreeMap<String, OwnRetention>,
    /// Of these people, in place of their tenant's: `tenant/principal`. A session is whose who made it, or began its first turn.
    pub principals: BTreeMap<String, OwnRetention>,
}

/// How long what the people of one tenant, or one of them, leave here is kept. What is not there is as for all, or as for the tenant;
/// 0: for ever.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnRetention {
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
        own.or([self.sessions_days, self.files_days, self.batches_days])
    }

    /// The same, of one person. `None`: who is not named has what their tenant has.
    fn of_principal(&self, tenant: &str, principal: &str) -> Option<[u32; 3]> {
        // Nobody builds a name for a table that is empty.
        let own = (!self.principals.is_empty()).then(|| self.principals.get(&format!("{tenant}/{principal}"))).flatten()?;
        Some(own.or(self.of(Some(tenant))))
    }

    /// The same, of what is this one's; of nobody's, where it is empty.
    pub fn of_owner(&self, tenant: &str, owner: &str) -> [u32; 3] {
        self.of_principal(tenant, owner).unwrap_or_else(|| self.of(Some(tenant)))
    }

    /// The shortest that anybody has, in one tenant or (none) in those where nobody is named; 0 where all stays.
    pub fn shortest(&self, tenant: Option<&str>) -> [u32; 3] {
        let people = self.people().filter(|(of, _)| tenant == Some(*of));
        people.map(|(tenant, person)| self.of_owner(tenant, person)).fold(self.of(tenant), |[a, b, c], [d, e, f]| {
            let shorter = |one: u32, other: u32| if one == 0 || other == 0 { one.max(other) } else { one.min(other) };
            [shorter(a, d), shorter(b, e), shorter(c, f)]
        })
    }

    /// The tenants of which something is said of their own, or of somebody of them.
    pub fn named(&self) -> BTreeSet<&str> {
        self.tenants.keys().map(String::as_str).chain(self.people().map(|(tenant, _)| tenant)).collect()
    }

    /// Tenant and id of the people who are named.
    fn people(&self) -> impl Iterator<Item = (&str, &str)> {
        self.principals.keys().filter_map(|name| name.split_once('/'))
    }

    /// Whether everything stays.
    pub fn is_none(&self) -> bool {
        let mut all = self.named().into_iter().map(Some).chain([None]);
        all.all(|tenant| self.shortest(tenant) == [0; 3])
    }

    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        check("retention", self.of(None), lines)?;
        self.tenants.keys().try_for_each(|tenant| check(&format!("retention.tenants.{tenant}"), self.of(Some(tenant)), lines))?;
        self.principals.keys().try_for_each(|name| {
            let path = format!("retention.principals.{name}");
            let parts = name.split_once('/').filter(|(tenant, principal)| !tenant.is_empty() && !principal.is_empty());
            let (tenant, principal) = parts.ok_or_else(|| lines.error(&path, "must be named tenant/principal"))?;
            check(&path, self.of_principal(tenant, principal).unwrap_or_default(), lines)
        })
    }
}

impl OwnRetention {
    fn or(self, [sessions, files, batches]: [u32; 3]) -> [u32; 3] {
        [self.sessions_days.unwrap_or(sessions), self.files_days.unwrap_or(files), self.batches_days.unwrap_or(batches)]
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

    #[test]
    fn a_person_has_what_is_said_of_them_and_else_what_their_tenant_has() {
        let retention =
            read("  files_days: 90\n  tenants: { acme: { sessions_days: 30 } }\n  principals: { acme/ann: { files_days: 7 } }\n");
        let retention = retention.unwrap().retention;
        assert_eq!(retention.of_principal("acme", "ann"), Some([30, 7, 0]));
        assert_eq!((retention.of_principal("acme", "bob"), retention.of_principal("other", "ann")), (None, None));
        assert_eq!((retention.of_owner("acme", "ann"), retention.of_owner("acme", "")), ([30, 7, 0], [30, 90, 0]));
        assert_eq!(retention.named().into_iter().collect::<Vec<_>>(), ["acme"]);
        assert_eq!((retention.shortest(Some("acme")), retention.shortest(None)), ([30, 7, 0], [0, 90, 0]));
        assert!(!read("  principals: { a/b: { files_days: 1 } }\n").unwrap().retention.is_none());
        assert!(read("  principals: { a/b: {} }\n").unwrap().retention.is_none());
        for (wrong, why) in [("ann: {}", "ann: must be named tenant/principal"), ("a/b: { files_days: 4000 }", "a/b.files_days: is 4000")] {
            let error = read(&format!("  principals:\n    {wrong}\n")).unwrap_err();
            assert!(error.message().starts_with(&format!("m.yaml:5: retention.principals.{why}")), "{}", error.message());
        }
    }
}
