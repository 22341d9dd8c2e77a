//! A question with everything filled in, and ways to change it.

use std::collections::BTreeSet;

use llama_stack_policy::{CedarPolicy, Decision, Facts, Policy, Principal, Question, Source};
use serde_json::{Value, json};

pub(crate) struct Ask {
    pub(crate) principal: Principal,
    pub(crate) agent_id: String,
    pub(crate) tool: Facts,
    pub(crate) arguments: Value,
    pub(crate) seen: BTreeSet<String>,
}

/// A call of `web/http_fetch`, by Ann of Acme, in a session that has seen nothing.
pub(crate) fn ask() -> Ask {
    let flags = Facts { reads_untrusted: false, reads_private: false, changes_state: false, ..Facts::unknown("http_fetch", "web") };
    let principal = Principal { id: "ann".into(), tenant: "acme".into(), roles: Vec::new() };
    Ask { principal, agent_id: "support".into(), tool: flags, arguments: json!({}), seen: BTreeSet::new() }
}

impl Ask {
    pub(crate) fn arguments(mut self, arguments: Value) -> Self {
        self.arguments = arguments;
        self
    }

    pub(crate) fn seen(mut self, labels: &[&str]) -> Self {
        self.seen = labels.iter().map(|label| (*label).to_owned()).collect();
        self
    }

    pub(crate) fn of(&self, policy: &dyn Policy) -> Decision {
        policy.decide(&Question {
            principal: &self.principal,
            agent_id: &self.agent_id,
            tool: &self.tool,
            arguments: &self.arguments,
            seen: &self.seen,
        })
    }

    /// `allow`, `ask` or `deny`, with the policies that decided.
    pub(crate) fn answer(&self, policy: &dyn Policy) -> String {
        self.of(policy).to_string()
    }
}

pub(crate) fn policy(text: &str) -> CedarPolicy {
    CedarPolicy::new(&[Source::new("p.cedar", text)]).unwrap()
}

/// What stands before policies that only forbid.
pub(crate) const PERMIT: &str = "@id(\"rest\") permit (principal, action, resource);\n";
