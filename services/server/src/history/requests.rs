//! The latest requests of this process, in a ring: what is older makes room.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use llama_stack_core::{Context, ids};
use llama_stack_proto::v1::RequestRecord;

/// Cheap enough for every request: a short lock, and no I/O.
pub(crate) struct Requests {
    /// At most so many; 0: none are kept.
    most: usize,
    /// With their tenants, oldest first.
    kept: Mutex<VecDeque<(String, RequestRecord)>>,
}

/// A request whose answer is not done. Dropping it writes it down.
pub(crate) struct Begun {
    requests: Arc<Requests>,
    tenant: String,
    record: RequestRecord,
    started: Instant,
}

impl Requests {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, kept: Mutex::default() })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.most > 0
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(String, RequestRecord)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(self: &Arc<Self>, cx: &Context, id: &str, method: &str, route: &str) -> Begun {
        let record = RequestRecord {
            id: id.into(),
            started: Some(ids::now()),
            method: method.into(),
            route: route.into(),
            // Until there is an answer: whoever asked went away.
            code: "499".into(),
            seconds: 0.0,
            principal: cx.principal().id.clone(),
        };
        Begun { requests: self.clone(), tenant: cx.tenant().into(), record, started: Instant::now() }
    }

    /// Of this tenant, newest first; `principal` and `route`: only theirs, where they are not empty.
    pub(super) fn latest(&self, tenant: &str, principal: &str, route: &str, most: usize) -> Vec<RequestRecord> {
        let is_wanted = |(of, record): &&(String, RequestRecord)| {
            of == tenant && (principal.is_empty() || record.principal == principal) && (route.is_empty() || record.route == route)
        };
        self.kept().iter().rev().filter(is_wanted).take(most).map(|(_, record)| record.clone()).collect()
    }

    /// Forgets those of a tenant, or of one principal of it where it is not empty, and says how many there were.
    pub(crate) fn forget(&self, tenant: &str, principal: &str) -> u64 {
        let mut kept = self.kept();
        let before = kept.len();
        kept.retain(|(of, record)| of != tenant || !principal.is_empty() && record.principal != principal);
        (before - kept.len()) as u64
    }
}

impl Begun {
    pub(crate) fn answered(&mut self, code: &str) {
        code.clone_into(&mut self.record.code);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        record.seconds = self.started.elapsed().as_secs_f64();
        let mut kept = self.requests.kept();
        if kept.len() >= self.requests.most {
            kept.pop_front();
        }
        kept.push_back((std::mem::take(&mut self.tenant), record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_each_tenant_sees_its_own() {
        let requests = Requests::new(3);
        for n in 0..5 {
            let tenant = if n == 3 { "other" } else { "acme" };
            requests.begin(&Context::test(tenant), &n.to_string(), "GET", "/v1/models").answered("200");
        }
        let seen = |tenant: &str, principal: &str, route: &str| -> Vec<String> {
            requests.latest(tenant, principal, route, 10).into_iter().map(|record| record.id).collect()
        };
        assert_eq!(seen("acme", "", ""), ["4", "2"]);
        assert_eq!(seen("other", "tester", "/v1/models"), ["3"]);
        assert!(seen("acme", "nobody", "").is_empty() && seen("acme", "", "/v1/files").is_empty());
        assert_eq!(requests.latest("acme", "", "", 1).len(), 1);
        let record = &requests.latest("acme", "", "", 1)[0];
        assert_eq!((record.code.as_str(), record.principal.as_str()), ("200", "tester"));
    }
}
