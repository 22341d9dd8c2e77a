//! Policies in Cedar.

use std::{collections::BTreeMap, str::FromStr};

use cedar_policy::{Authorizer, Context, Decision as Verdict, EntityUid, PolicySet, Request, Response, Schema, Validator};
use llama_stack_core::{Error, Result};

use crate::{
    Decision, Policy, Question, SCHEMA,
    request::{Asked, Names},
    sources::{self, Source},
};

/// A set of Cedar policies, parsed and checked against [`SCHEMA`].
///
/// Two actions encode three answers. `call` denied: the call is refused. `call` allowed and `call_unattended` denied:
/// it waits for a person. Both allowed: it runs. As always in Cedar, what nothing permits is denied, and one `forbid`
/// outweighs every `permit`. Other than in Cedar, a policy that fails to evaluate is not passed over: the call is denied.
pub struct CedarPolicy {
    authorizer: Authorizer,
    names: Names,
    call: PolicySet,
    call_unattended: PolicySet,
    /// Policy id → its `@reason`.
    reasons: BTreeMap<String, String>,
}

impl CedarPolicy {
    /// # Errors
    /// `InvalidArgument`, with file, line and policy: text that is not Cedar, a policy without an `@id` or with one that
    /// is taken, a template, or one that does not fit the schema; and no policy at all.
    pub fn new(sources: &[Source]) -> Result<Self> {
        let schema = Schema::from_str(SCHEMA).map_err(|error| Error::internal(format!("the schema of policies: {error}")))?;
        let checked = sources::read(sources, &Validator::new(schema))?;
        let names = Names::new()?;
        Ok(Self {
            authorizer: Authorizer::new(),
            call: sources::about(&checked, &names.call)?,
            call_unattended: sources::about(&checked, &names.call_unattended)?,
            names,
            reasons: checked
                .into_iter()
                .filter_map(|checked| checked.reason.map(|reason| (checked.policy.id().to_string(), reason)))
                .collect(),
        })
    }

    fn answer(&self, asked: &Asked, action: &EntityUid, policies: &PolicySet, context: Context) -> Result<Response> {
        let request = Request::new(asked.principal.clone(), action.clone(), asked.resource.clone(), context, None)
            .map_err(|error| Error::invalid("policy", error.to_string()))?;
        Ok(self.authorizer.is_authorized(&request, policies, &asked.entities))
    }

    /// The refusal that `response` is, if it is one.
    fn refusal(&self, response: &Response, forbids: bool) -> Option<Decision> {
        let mut failed: Vec<_> = response.diagnostics().errors().map(|error| (failed_policy(error), error.to_string())).collect();
        if !failed.is_empty() {
            failed.sort();
            let reason = failed[0].1.clone();
            return Some(Decision::Deny { policies: failed.into_iter().map(|(id, _)| id).collect(), reason });
        }
        if !forbids || response.decision() == Verdict::Allow {
            return None;
        }
        let policies = decisive(response);
        let reason = match policies.iter().find_map(|id| self.reasons.get(id)) {
            Some(reason) => reason.clone(),
            None if policies.is_empty() => "no policy permits this call".into(),
            None => format!("forbidden by policy {}", policies.join(", ")),
        };
        Some(Decision::Deny { policies, reason })
    }

    fn decided(&self, question: &Question<'_>) -> Result<Decision> {
        let mut asked = self.names.asked(question)?;
        let context = std::mem::replace(&mut asked.context, Context::empty());
        let call = self.answer(&asked, &self.names.call, &self.call, context.clone())?;
        if let Some(refusal) = self.refusal(&call, true) {
            return Ok(refusal);
        }
        let unattended = self.answer(&asked, &self.names.call_unattended, &self.call_unattended, context)?;
        if let Some(refusal) = self.refusal(&unattended, false) {
            return Ok(refusal);
        }
        let mut policies = decisive(&unattended);
        if unattended.decision() == Verdict::Deny {
            return Ok(Decision::Ask { policies });
        }
        policies.extend(decisive(&call));
        policies.sort();
        policies.dedup();
        Ok(Decision::Allow { policies })
    }
}

impl Policy for CedarPolicy {
    fn decide(&self, question: &Question<'_>) -> Decision {
        self.decided(question).unwrap_or_else(|error| Decision::Deny {
            policies: Vec::new(),
            reason: format!("the policies could not be asked: {}", error.message()),
        })
    }
}

fn decisive(response: &Response) -> Vec<String> {
    let mut ids: Vec<_> = response.diagnostics().reason().map(ToString::to_string).collect();
    ids.sort();
    ids
}

fn failed_policy(error: &cedar_policy::AuthorizationError) -> String {
    let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
    error.policy_id().to_string()
}
