//! Who may call what: one question per call of a service, answered by Cedar, denied unless a policy permits it.
//!
//! ```text
//! User in Role::"…" ── Action::"Agents.DeleteAgent" in Action::"own" ── Resource { kind, id, tenant, owner? }
//! ```

mod actions;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    str::FromStr,
};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request, RestrictedExpression, Schema,
    Validator,
};
use llama_stack_core::{Error, Principal, Result};

pub use actions::{ACTIONS, Action, Class, actions, is_action};

use crate::sources::{self, Source};

/// The policies that come with the stack.
pub const BUILT_IN: &str = include_str!("access/built_in.cedar");

/// May this caller do this to that?
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    pub principal: &'a Principal,
    pub attributes: &'a BTreeMap<String, String>,
    pub action: &'a Action,
    /// `agent`, `session`, `turn`, …; empty where the call is about no single thing.
    pub kind: &'a str,
    pub id: &'a str,
    /// Whose it is, where that is known.
    pub owner: Option<&'a str>,
}

/// The answer, and the policies that it rests on. Ids are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// Those that permit it, or those that forbid it; none: nothing permits it.
    pub policies: Vec<String>,
    /// What could not be evaluated. Any of it denies the call.
    pub failures: Vec<String>,
}

/// A set of policies, parsed and checked.
pub struct AccessPolicies {
    authorizer: Authorizer,
    policies: PolicySet,
    /// The hierarchy of actions.
    actions: Entities,
    uids: HashMap<String, EntityUid>,
    user: EntityTypeName,
    role: EntityTypeName,
    resource: EntityTypeName,
}

impl AccessPolicies {
    /// # Errors
    /// `InvalidArgument`, with file and line, as [`crate::CedarPolicy::new`].
    pub fn new(sources: &[Source]) -> Result<Self> {
        let schema = Schema::from_str(&schema()).map_err(|error| Error::internal(format!("the schema of access: {error}")))?;
        let actions = schema.action_entities().map_err(refused)?;
        let mut policies = PolicySet::new();
        for checked in sources::read(sources, &Validator::new(schema))? {
            policies.add(checked.policy).map_err(refused)?;
        }
        let (kind, action) = (|name| EntityTypeName::from_str(name).map_err(refused), EntityTypeName::from_str("Action").map_err(refused)?);
        let named = |one: Action| (one.name(), EntityUid::from_type_name_and_id(action.clone(), EntityId::new(one.name())));
        let uids = self::actions().map(named).collect();
        Ok(Self {
            authorizer: Authorizer::new(),
            policies,
            actions,
            uids,
            user: kind("User")?,
            role: kind("Role")?,
            resource: kind("Resource")?,
        })
    }

    /// Never fails: what cannot be asked is denied.
    pub fn decide(&self, access: &Access<'_>) -> Verdict {
        self.asked(access).unwrap_or_else(|error| Verdict { allowed: false, policies: Vec::new(), failures: vec![error.message().into()] })
    }

    fn asked(&self, access: &Access<'_>) -> Result<Verdict> {
        let (who, what) = (access.principal, access.action.name());
        let action = self.uids.get(&what).ok_or_else(|| Error::invalid("action", format!("no action {what:?}")))?;
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let roles: HashSet<EntityUid> = who.roles.iter().map(|role| uid(&self.role, role)).collect();
        let user = uid(&self.user, &format!("{}/{}", who.tenant, who.id));
        let facts = [("id".to_owned(), text(&who.id)), ("tenant".to_owned(), text(&who.tenant))];
        let tags = access.attributes.iter().map(|(name, value)| (name.clone(), text(value)));
        let principal = Entity::new_with_tags(user.clone(), facts, roles.iter().cloned(), tags).map_err(refused)?;
        let thing = uid(&self.resource, &format!("{}/{}/{}", who.tenant, access.kind, access.id));
        let mut facts = vec![
            ("kind".to_owned(), text(access.kind)),
            ("id".to_owned(), text(access.id)),
            // Services look into the caller's tenant only, so nothing that is found is another's.
            ("tenant".to_owned(), text(&who.tenant)),
        ];
        facts.extend(access.owner.map(|owner| ("owner".to_owned(), text(owner))));
        let resource = Entity::new_with_tags(thing.clone(), facts, [], []).map_err(refused)?;
        let roles = roles.into_iter().map(Entity::with_uid);
        let entities = self.actions.clone().add_entities(roles.chain([principal, resource]), None).map_err(refused)?;
        let request = Request::new(user, action.clone(), thing, Context::empty(), None).map_err(refused)?;
        let answer = self.authorizer.is_authorized(&request, &self.policies, &entities);
        let mut policies: Vec<String> = answer.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        // Cedar passes over what fails; a `forbid` that fails would then forbid nothing.
        let failures: Vec<String> = answer.diagnostics().errors().map(ToString::to_string).collect();
        Ok(Verdict { allowed: answer.decision() == Decision::Allow && failures.is_empty(), policies, failures })
    }
}

/// What policies can speak of, in Cedar's schema language.
pub fn schema() -> String {
    let mut schema = String::from(
        "entity Role;\n\
         entity User in [Role] = { id: String, tenant: String } tags String;\n\
         entity Resource = { kind: String, id: String, tenant: String, owner?: String };\n",
    );
    for class in Class::ALL {
        let _ = writeln!(schema, "action \"{}\";", class.name());
    }
    for (service, rpcs) in ACTIONS {
        let _ = writeln!(schema, "action \"{service}\";");
        for (rpc, class) in *rpcs {
            let _ = writeln!(
                schema,
                "action \"{service}.{rpc}\" in [\"{}\", \"{service}\"] appliesTo {{ principal: [User], resource: [Resource], context: {{}} }};",
                class.name()
            );
        }
    }
    schema
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("the policies of access cannot be asked: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, roles: &[&str], action: &str, owner: Option<&str>) -> Verdict {
        let mut sources = vec![Source::new("built_in.cedar", BUILT_IN)];
        if !text.is_empty() {
            sources.push(Source::new("own.cedar", text));
        }
        let policies = AccessPolicies::new(&sources).unwrap();
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let principal = Principal { id: "ann".into(), tenant: "acme".into(), roles };
        let attributes = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        let action = actions().find(|one| one.name() == action).unwrap();
        policies.decide(&Access { principal: &principal, attributes: &attributes, action: &action, kind: "session", id: "sess_1", owner })
    }

    #[test]
    fn owners_and_admins_do_what_others_may_not() {
        let allowed = |roles: &[&str], action, owner| verdict("", roles, action, owner).allowed;
        assert!(allowed(&[], "Inference.Chat", None));
        assert!(allowed(&[], "Agents.GetSession", Some("ann")) && !allowed(&[], "Agents.GetSession", Some("bob")));
        assert!(!allowed(&[], "Agents.GetSession", None), "nobody's is not everybody's");
        assert!(allowed(&["admin"], "Agents.GetSession", Some("bob")) && !allowed(&["user"], "Identity.CreateApiKey", None));
        assert_eq!(verdict("", &["admin"], "Identity.CreateApiKey", None).policies, ["built-in/admin"]);
    }

    #[test]
    fn what_concerns_all_tenants_takes_an_operator() {
        let allowed = |roles: &[&str], action| verdict("", roles, action, None).allowed;
        assert!(!allowed(&["admin"], "Stack.Backup") && !allowed(&[], "Stack.Backup"));
        assert!(allowed(&["operator"], "Stack.Backup") && allowed(&["operator"], "Stack.Erase") && allowed(&["admin"], "Stack.Erase"));
        assert!(!verdict("", &["operator"], "Agents.GetSession", Some("bob")).allowed, "an operator is no admin of people's sessions");
    }

    #[test]
    fn a_policy_of_ones_own_permits_and_forbids() {
        let auditors = "@id(\"auditors\") permit (principal in Role::\"auditor\", action == Action::\"Agents.GetSession\", resource);";
        assert!(verdict(auditors, &["auditor"], "Agents.GetSession", Some("bob")).allowed);
        assert!(!verdict(auditors, &["auditor"], "Agents.DeleteSession", Some("bob")).allowed);
        let blue = "@id(\"no-blue\") forbid (principal, action in Action::\"Inference\", resource) \
                    when { principal.hasTag(\"team\") && principal.getTag(\"team\") == \"blue\" };";
        let denied = verdict(blue, &["admin"], "Inference.Chat", None);
        assert_eq!((denied.allowed, denied.policies), (false, vec!["no-blue".to_owned()]));
    }

    #[test]
    fn a_policy_about_an_action_that_there_is_not_is_refused_with_its_line() {
        let wrong = Source::new("own.cedar", "\n@id(\"x\") permit (principal, action == Action::\"Agents.Nope\", resource);");
        let error = AccessPolicies::new(&[wrong]).err().unwrap();
        assert!(error.message().starts_with("own.cedar:2: policy \"x\": "), "{error}");
    }
}
