//! Policies in Cedar.

use std::{collections::BTreeSet, str::FromStr};

use cedar_policy::{Request, Schema, Validator};
use llama_stack_core::{Error, Result};

use crate::{
    Decision, Policy, Question, SCHEMA,
    request::{Asked, Names},
    rule::{self, Rule},
    sources::{self, Source},
};

/// A set of Cedar policies, parsed and checked against [`SCHEMA`].
///
/// Two actions encode three answers. `call` denied: the call is refused. `call` allowed and `call_unattended` denied:
/// it waits for a person. Both allowed: it runs. As always in Cedar, what nothing permits is denied, and one `forbid`
/// outweighs every `permit`. Other than in Cedar, a policy that fails to evaluate is not passed over: the call is denied.
pub struct CedarPolicy {
    names: Names,
    /// In the order of their ids.
    rules: Vec<Rule>,
    /// The arguments that any of them asks for. None: all.
    wanted: Option<BTreeSet<String>>,
}

/// What the policies say of one action. Sorted by id.
#[derive(Default)]
struct Verdict<'a> {
    permits: Vec<&'a Rule>,
    forbids: Vec<&'a Rule>,
}

impl CedarPolicy {
    /// # Errors
    /// `InvalidArgument`, with file, line and policy: text that is not Cedar, a policy without an `@id` or with one that
    /// is taken, a template, or one that does not fit the schema; and no policy at all.
    pub fn new(sources: &[Source]) -> Result<Self> {
        let schema = Schema::from_str(SCHEMA).map_err(|error| Error::internal(format!("the schema of policies: {error}")))?;
        let checked = sources::read(sources, &Validator::new(schema))?;
        let mut rules: Vec<_> = checked.into_iter().map(Rule::new).collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(Self { names: Names::new()?, wanted: rule::asked_for(&rules), rules })
    }

    fn decided(&self, question: &Question<'_>) -> Result<Decision> {
        let asked = self.names.asked(question, self.wanted.as_ref())?;
        match self.verdicts(&asked)? {
            Ok([call, unattended]) => Ok(decision(&call, &unattended)),
            Err(failure) => Ok(failure),
        }
    }

    /// Of `call` and of `call_unattended`; or the denial that a failing policy is.
    fn verdicts(&self, asked: &Asked) -> Result<Result<[Verdict<'_>; 2], Decision>> {
        let request = |action: &cedar_policy::EntityUid| {
            Request::new(asked.principal.clone(), action.clone(), asked.resource.clone(), asked.context.clone(), None)
                .map_err(|error| Error::invalid("policy", error.to_string()))
        };
        let actions = [&self.names.call, &self.names.call_unattended];
        let requests = [request(actions[0])?, request(actions[1])?];
        let mut verdicts = [Verdict::default(), Verdict::default()];
        let mut failed: Vec<(&Rule, String)> = Vec::new();
        for rule in &self.rules {
            let mut known = None;
            for (index, request) in requests.iter().enumerate() {
                if !rule.concerns(&asked.principal, actions[index], &asked.resource) {
                    continue;
                }
                let holds = match known.filter(|_| rule.for_any_action) {
                    Some(holds) => holds,
                    None => match rule.holds(request, &asked.entities) {
                        Ok(holds) => holds,
                        Err(error) => {
                            failed.push((rule, error));
                            break;
                        }
                    },
                };
                known = Some(holds);
                match (holds, rule.forbids) {
                    (true, true) => verdicts[index].forbids.push(rule),
                    (true, false) => verdicts[index].permits.push(rule),
                    (false, _) => {}
                }
            }
        }
        let Some((_, reason)) = failed.first() else { return Ok(Ok(verdicts)) };
        Ok(Err(Decision::Deny { policies: failed.iter().map(|(rule, _)| rule.id.clone()).collect(), reason: reason.clone() }))
    }
}

fn decision(call: &Verdict<'_>, unattended: &Verdict<'_>) -> Decision {
    if !call.forbids.is_empty() {
        let policies = ids(&call.forbids);
        let reason = call.forbids.iter().find_map(|rule| rule.reason.clone());
        let reason = reason.unwrap_or_else(|| format!("forbidden by policy {}", policies.join(", ")));
        return Decision::Deny { policies, reason };
    }
    if call.permits.is_empty() {
        return Decision::Deny { policies: Vec::new(), reason: "no policy permits this call".into() };
    }
    if !unattended.forbids.is_empty() || unattended.permits.is_empty() {
        return Decision::Ask { policies: ids(&unattended.forbids) };
    }
    let mut policies = ids(&call.permits);
    policies.extend(ids(&unattended.permits));
    policies.sort();
    policies.dedup();
    Decision::Allow { policies }
}

fn ids(rules: &[&Rule]) -> Vec<String> {
    rules.iter().map(|rule| rule.id.clone()).collect()
}

impl Policy for CedarPolicy {
    fn decide(&self, question: &Question<'_>) -> Decision {
        self.decided(question).unwrap_or_else(|error| Decision::Deny {
            policies: Vec::new(),
            reason: format!("the policies could not be asked: {}", error.message()),
        })
    }
}
