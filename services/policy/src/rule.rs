//! One policy, made ready to be asked many times.
//!
//! Cedar's authorizer puts a policy's condition together each time that it is asked, evaluates every policy for every
//! action, and passes over those that fail. Here the condition is kept, what cannot apply is not evaluated, what plain
//! facts settle is not evaluated either, and what does not depend on the action is evaluated once for both.

use std::collections::BTreeSet;

use cedar_policy::{
    ActionConstraint, Effect, Entities, EntityUid, EvalResult, Expression, Policy, PrincipalConstraint, Request, ResourceConstraint,
    eval_expression,
};
use serde_json::Value;

use crate::{
    shortcut::{Known, Shortcut},
    sources::Checked,
};

pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) reason: Option<String>,
    pub(crate) forbids: bool,
    /// It holds for every action alike.
    pub(crate) for_any_action: bool,
    action: ActionConstraint,
    /// The one user or tool that it is about.
    principal: Option<EntityUid>,
    resource: Option<EntityUid>,
    /// None: it holds wherever it concerns.
    condition: Option<Expression>,
    /// The same, as far as it can be decided without Cedar.
    shortcut: Shortcut,
    /// The paths of arguments that it asks for. None: it may ask for any.
    asks_for: Option<BTreeSet<String>>,
}

impl Rule {
    pub(crate) fn new(checked: Checked) -> Self {
        let policy = checked.policy;
        let body = Body::of(&policy);
        let action = policy.action_constraint();
        let (principal, any_principal) = match policy.principal_constraint() {
            PrincipalConstraint::Any => (None, true),
            PrincipalConstraint::Eq(user) => (Some(user), true),
            _ => (None, false),
        };
        let (resource, any_resource) = match policy.resource_constraint() {
            ResourceConstraint::Any => (None, true),
            ResourceConstraint::Eq(tool) => (Some(tool), true),
            _ => (None, false),
        };
        // Where `concerns` has looked at all of the scope, evaluating it again would double the work.
        let (condition, shortcut) = if any_principal && any_resource {
            (policy.as_ref().non_scope_constraints().cloned().map(Into::into), Shortcut::of(&policy))
        } else {
            (Some(policy.as_ref().condition().into()), Shortcut::Unknown)
        };
        Self {
            id: policy.id().to_string(),
            reason: checked.reason,
            forbids: policy.effect() == Effect::Forbid,
            for_any_action: action == ActionConstraint::Any && !body.names_action,
            action,
            principal,
            resource,
            condition,
            shortcut,
            asks_for: body.asks_for,
        }
    }

    /// False where its scope alone says that it does not apply.
    pub(crate) fn concerns(&self, principal: &EntityUid, action: &EntityUid, resource: &EntityUid) -> bool {
        let concerned = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(named) => named == action,
            ActionConstraint::In(named) => named.contains(action),
        };
        let is = |named: &Option<EntityUid>, it| named.as_ref().is_none_or(|named| named == it);
        concerned && is(&self.resource, resource) && is(&self.principal, principal)
    }

    /// Whether it holds, where Cedar need not be asked.
    pub(crate) fn settled(&self, known: &Known<'_>) -> Option<bool> {
        if self.condition.is_none() { Some(true) } else { self.shortcut.holds(known) }
    }

    /// # Errors
    /// What went wrong, if it cannot be evaluated.
    pub(crate) fn holds(&self, request: &Request, entities: &Entities) -> Result<bool, String> {
        let Some(condition) = &self.condition else { return Ok(true) };
        match eval_expression(request, entities, condition) {
            Ok(EvalResult::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("policy {} is {other}, neither true nor false", self.id)),
            Err(error) => Err(format!("policy {} failed: {error}", self.id)),
        }
    }
}

/// The paths that any of `rules` asks for. None: one of them may ask for any.
pub(crate) fn asked_for(rules: &[Rule]) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for rule in rules {
        all.extend(rule.asks_for.as_ref()?.iter().cloned());
    }
    Some(all)
}

/// What a policy's conditions speak of. Of one that cannot be read: anything.
struct Body {
    names_action: bool,
    asks_for: Option<BTreeSet<String>>,
}

impl Body {
    fn of(policy: &Policy) -> Self {
        let mut body = Self { names_action: false, asks_for: Some(BTreeSet::new()) };
        match policy.to_json() {
            Ok(json) => body.walk(&json["conditions"]),
            Err(_) => body = Self { names_action: true, asks_for: None },
        }
        body
    }

    /// Through a condition in Cedar's JSON form. Source: "JSON policy format" of Cedar's reference.
    fn walk(&mut self, expression: &Value) {
        match expression {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(map) => {
                for (operator, operands) in map {
                    match operator.as_str() {
                        "Var" if operands == "action" => self.names_action = true,
                        "hasTag" | "getTag" => match (operands["right"]["Value"].as_str(), &mut self.asks_for) {
                            (Some(path), Some(paths)) => {
                                paths.insert(path.to_owned());
                            }
                            _ => self.asks_for = None,
                        },
                        _ => {}
                    }
                    self.walk(operands);
                }
            }
            _ => {}
        }
    }
}
