//! A question in Cedar's terms: who, what and in which circumstances, as `schema.cedarschema` declares them.

use std::{
    collections::BTreeSet,
    ops::Bound::{Included, Unbounded},
    str::FromStr,
};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use llama_stack_core::{Error, Result};

use crate::{Question, arguments::Arguments, shortcut::Known};

/// Labels that policies can look at. Sessions have one per tool and bank.
pub(crate) const LABELS: usize = 128;

/// The names of the schema, read once.
pub(crate) struct Names {
    user: EntityTypeName,
    agent: EntityTypeName,
    tool: EntityTypeName,
    text: EntityUid,
    whole: EntityUid,
    decimals: EntityUid,
    lists: EntityUid,
    pub(crate) call: EntityUid,
    pub(crate) call_unattended: EntityUid,
}

/// What a question is about.
pub(crate) struct Scope {
    pub(crate) principal: EntityUid,
    pub(crate) resource: EntityUid,
}

/// All that Cedar must know to evaluate a condition.
pub(crate) struct Asked {
    pub(crate) context: Context,
    pub(crate) entities: Entities,
}

impl Names {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            user: kind("User")?,
            agent: kind("Agent")?,
            tool: kind("Tool")?,
            text: uid(&kind("Text")?, "arguments"),
            whole: uid(&kind("Whole")?, "arguments"),
            decimals: uid(&kind("Decimals")?, "arguments"),
            lists: uid(&kind("Lists")?, "arguments"),
            call: uid(&kind("Action")?, "call"),
            call_unattended: uid(&kind("Action")?, "call_unattended"),
        })
    }

    pub(crate) fn scope(&self, question: &Question<'_>) -> Scope {
        let (who, tool) = (question.principal, question.tool);
        Scope {
            principal: uid(&self.user, &format!("{}/{}", who.tenant, who.id)),
            resource: uid(&self.tool, &format!("{}/{}", tool.group, tool.name)),
        }
    }

    /// # Errors
    /// `InvalidArgument`, if Cedar refuses a value.
    pub(crate) fn asked(&self, scope: &Scope, known: &Known<'_>) -> Result<Asked> {
        let (who, tool) = (known.question.principal, known.question.tool);
        let user =
            [("id".to_owned(), string(&who.id)), ("tenant".to_owned(), string(&who.tenant)), ("roles".to_owned(), strings(&who.roles))];
        let facts = [
            ("group".to_owned(), string(&tool.group)),
            ("name".to_owned(), string(&tool.name)),
            ("reads_untrusted".to_owned(), RestrictedExpression::new_bool(tool.reads_untrusted)),
            ("reads_private".to_owned(), RestrictedExpression::new_bool(tool.reads_private)),
            ("changes_state".to_owned(), RestrictedExpression::new_bool(tool.changes_state)),
            ("remote".to_owned(), RestrictedExpression::new_bool(tool.remote)),
        ];
        let Arguments { text, whole, decimals, lists, .. } = known.arguments;
        let table = |uid: &EntityUid, tags: &[(String, RestrictedExpression)]| {
            Entity::new_with_tags(uid.clone(), [], [], tags.iter().cloned()).map_err(refused)
        };
        let entities = [
            Entity::new_with_tags(scope.principal.clone(), user, [], []).map_err(refused)?,
            Entity::new_with_tags(scope.resource.clone(), facts, [], []).map_err(refused)?,
            table(&self.text, text)?,
            table(&self.whole, whole)?,
            table(&self.decimals, decimals)?,
            table(&self.lists, lists)?,
        ];
        // Without the schema: these values have its types by construction, and checking them again would cost more
        // than the decision. A test holds them against it.
        let entities = Entities::from_entities(entities, None).map_err(refused)?;
        Ok(Asked { context: self.context(known)?, entities })
    }

    fn context(&self, known: &Known<'_>) -> Result<Context> {
        let question = known.question;
        let tables = [("text", &self.text), ("whole", &self.whole), ("decimals", &self.decimals), ("lists", &self.lists)];
        let tables = tables.map(|(name, table)| (name.to_owned(), RestrictedExpression::new_entity_uid(table.clone())));
        Context::from_pairs([
            ("agent".to_owned(), RestrictedExpression::new_entity_uid(uid(&self.agent, question.agent_id))),
            ("arguments".to_owned(), RestrictedExpression::new_record(tables).map_err(refused)?),
            ("unreadable".to_owned(), RestrictedExpression::new_bool(known.unreadable)),
            ("seen".to_owned(), strings(question.seen.iter().take(LABELS))),
            ("seen_untrusted".to_owned(), RestrictedExpression::new_bool(known.seen_untrusted)),
            ("seen_private".to_owned(), RestrictedExpression::new_bool(known.seen_private)),
        ])
        .map_err(refused)
    }
}

/// Whether a label begins with `prefix`: labels are sorted, so the first that is not before it tells.
pub(crate) fn any(seen: &BTreeSet<String>, prefix: &str) -> bool {
    seen.range::<str, _>((Included(prefix), Unbounded)).next().is_some_and(|label| label.starts_with(prefix))
}

fn kind(name: &str) -> Result<EntityTypeName> {
    EntityTypeName::from_str(name).map_err(refused)
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn string(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn strings<'a>(values: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().map(|value| string(value)))
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::invalid("policy", error.to_string())
}

#[cfg(test)]
mod tests {
    use cedar_policy::{Request, Schema};
    use serde_json::json;

    use super::*;
    use crate::{
        Facts, Principal, SCHEMA,
        facts::{PRIVATE, UNTRUSTED},
    };

    #[test]
    fn questions_have_the_types_of_the_schema() {
        let schema = Schema::from_str(SCHEMA).unwrap();
        let principal = Principal { id: "ann".into(), tenant: "acme".into(), roles: vec!["admin".into()] };
        let arguments = json!({ "url": "u", "n": 5, "half": -0.5, "big": i64::MIN, "to": ["a", 1], "none": [], "deep": { "er": true } });
        let seen = ["tool:x".to_owned(), "untrusted:tool:x".to_owned()].into();
        let tool = Facts::unknown("t", "g");
        let question = Question { principal: &principal, agent_id: "a", tool: &tool, arguments: &arguments, seen: &seen };
        let (names, arguments) = (Names::new().unwrap(), Arguments::of(&arguments, None));
        for action in [&names.call, &names.call_unattended] {
            let scope = names.scope(&question);
            let asked = names.asked(&scope, &Known::of(&question, &arguments)).unwrap();
            Entities::from_entities(asked.entities, Some(&schema)).unwrap();
            Request::new(scope.principal, action.clone(), scope.resource, asked.context, Some(&schema)).unwrap();
        }
    }

    #[test]
    fn a_prefix_is_found_among_other_labels() {
        let seen = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>();
        assert!(any(&seen(&["private:tool:a", "tool:a", "untrusted:tool:a", "zz"]), UNTRUSTED));
        assert!(any(&seen(&["private:tool:a", "tool:a"]), PRIVATE));
        assert!(!any(&seen(&["private:tool:a", "tool:a", "zz"]), UNTRUSTED));
        assert!(!any(&seen(&[]), PRIVATE));
    }
}
