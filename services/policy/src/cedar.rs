//! Policies in Cedar.

use std::{collections::BTreeSet, str::FromStr};

use cedar_policy::{Entities, EntityUid, Request, Schema, Validator};
use llama_stack_core::{Error, Result};

use crate::{
    Decision, Policy, Question, SCHEMA,
    arguments::Arguments,
    request::{Asked, Names, Scope},
    rule::{self, Rule},
    shortcut::Known,
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
        let arguments = Arguments::of(question.arguments, self.wanted.as_ref());
        match self.verdicts(&Known::of(question, &arguments))? {
            Ok([call, unattended]) => Ok(decision(&call, &unattended)),
            Err(failure) => Ok(failure),
        }
    }

    /// The question, to Cedar: once for each action.
    fn asked(&self, scope: &Scope, known: &Known<'_>) -> Result<([Request; 2], Entities)> {
        let Asked { context, entities } = self.names.asked(scope, known)?;
        let request = |action: &EntityUid, context| {
            Request::new(scope.principal.clone(), action.clone(), scope.resource.clone(), context, None)
                .map_err(|error| Error::invalid("policy", error.to_string()))
        };
        Ok(([request(&self.names.call, context.clone())?, request(&self.names.call_unattended, context)?], entities))
    }

    /// Of `call` and of `call_unattended`; or the denial that a failing policy is.
    fn verdicts(&self, known: &Known<'_>) -> Result<Result<[Verdict<'_>; 2], Decision>> {
        let scope = self.names.scope(known.question);
        let actions = [&self.names.call, &self.names.call_unattended];
        // Made for the first policy that plain facts do not settle.
        let mut asked: Option<([Request; 2], Entities)> = None;
        let mut verdicts = [Verdict::default(), Verdict::default()];
        let mut failed: Vec<(&Rule, String)> = Vec::new();
        for rule in &self.rules {
            let concerns = actions.map(|action| rule.concerns(&scope.principal, action, &scope.resource));
            if concerns == [false, false] {
                continue;
            }
            let mut holds = rule.settled(known);
            let settled = holds.is_some();
            for (index, verdict) in verdicts.iter_mut().enumerate().filter(|(index, _)| concerns[*index]) {
                let decided = settled || holds.is_some() && rule.for_any_action;
                if !decided {
                    let (requests, entities) = match &mut asked {
                        Some(asked) => asked,
                        none => none.insert(self.asked(&scope, known)?),
                    };
                    match rule.holds(&requests[index], entities) {
                        Ok(now) => holds = Some(now),
                        Err(error) => {
                            failed.push((rule, error));
                            break;
                        }
                    }
                }
                match (holds, rule.forbids) {
                    (Some(true), true) => verdict.forbids.push(rule),
                    (Some(true), false) => verdict.permits.push(rule),
                    (Some(false) | None, _) => {}
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
