//! The guard before every service: asks the policies about each call, and knows whose a thing is.

mod policies;

use std::{collections::HashMap, sync::Arc};

use llama_stack_core::{
    Code, Context, Error, Result,
    guard::{Guard, Message},
};
use llama_stack_policy::access::{Access, AccessPolicies, Action, Class, actions};
use llama_stack_proto::v1::{Agent, ListSessionsResponse, ListSpansResponse, ListTurnsResponse, Prompt, Session};
use llama_stack_store::Store;

pub use policies::Policies;

use crate::target::{Target, targets};

/// What was decided about a call, for whoever writes it down.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// As policies write it.
    pub action: &'a str,
    /// Of the thing that the call is about; empty where it is about none.
    pub kind: &'a str,
    pub id: &'a str,
    pub allowed: bool,
    pub policies: &'a [String],
}

/// Is told every decision.
pub type OnDecision = Box<dyn Fn(&Context, &Decision<'_>) + Send + Sync>;

/// Denies what no policy permits.
pub struct Authorizer {
    policies: Arc<Policies>,
    store: Store,
    /// By the name of the method: `Agents.create_turn`.
    actions: HashMap<String, Action>,
    on_decision: Option<OnDecision>,
}

impl Authorizer {
    pub fn new(policies: Arc<Policies>, store: Store) -> Self {
        Self { policies, store, actions: actions().map(|action| (action.key(), action)).collect(), on_decision: None }
    }

    /// Tells this every decision about a call. What is left out of a list is none.
    #[must_use]
    pub fn telling(self, on_decision: OnDecision) -> Self {
        Self { on_decision: Some(on_decision), ..self }
    }

    /// A call that is about no thing of a service.
    ///
    /// # Errors
    /// `PermissionDenied`
    pub fn allow(&self, cx: &Context, action: &str) -> Result<()> {
        let action = self.action(action)?;
        self.decide(cx, &action, None, None, &self.policies.current())
    }

    fn action(&self, key: &str) -> Result<Action> {
        let unknown = || denied(format!("no policy knows {key}"));
        self.actions.get(key).copied().ok_or_else(unknown)
    }

    /// Whose it is, for those actions that it matters for.
    async fn owner(&self, cx: &Context, class: Class, target: Option<&Target>) -> Result<Option<String>> {
        let tenant = cx.tenant();
        match (class, target) {
            (Class::Use | Class::Admin | Class::Operate, _) => Ok(None),
            // A new one will be the caller's.
            (_, None) => Ok(Some(cx.principal().id.clone())),
            (_, Some(("session", id))) => self.store.owner_of_session(tenant, id).await,
            (_, Some(("turn", id))) => self.store.owner_of_turn(tenant, id).await,
            (_, Some((kind, id))) => {
                let owner = self.store.owner(tenant, id).await?;
                // What is not there is not found, whoever asks.
                match (*kind, owner.is_none()) {
                    ("agent", true) => self.store.get_agent(tenant, id).await.map(drop)?,
                    ("prompt", true) => self.store.get_prompt(tenant, id, 0).await.map(drop)?,
                    _ => {}
                }
                Ok(owner)
            }
        }
    }

    fn decide(&self, cx: &Context, action: &Action, target: Option<&Target>, owner: Option<&str>, policies: &AccessPolicies) -> Result<()> {
        let (kind, id) = target.map_or(("", ""), |(kind, id)| (*kind, id.as_str()));
        let access = Access { principal: cx.principal(), attributes: cx.attributes(), action, kind, id, owner };
        let verdict = policies.decide(&access);
        let (who, name) = (cx.principal(), action.name());
        if let Some(tell) = &self.on_decision {
            tell(cx, &Decision { action: &name, kind, id, allowed: verdict.allowed, policies: &verdict.policies });
        }
        if verdict.allowed {
            tracing::trace!(target: "llama_stack::audit", principal = who.id, tenant = who.tenant, action = name, kind, id, "allowed");
            return Ok(());
        }
        let (by, failures) = (verdict.policies.join(","), verdict.failures.join("; "));
        tracing::info!(
            target: "llama_stack::audit",
            principal = who.id, tenant = who.tenant, credential = cx.credential(), action = name, kind, id, by, failures, "denied"
        );
        Err(match action.class {
            // Who may not know of it is told what they would be told of one that is not there.
            Class::Private if target.is_some() => Error::not_found(format!("no {kind} {id:?}")).with_reason(format!("{kind}_not_found")),
            _ if !by.is_empty() => denied(format!("{name} is forbidden by policy {by}")),
            Class::Own => denied(format!("{name} takes the owner of {kind} {id:?}, or the role admin")),
            Class::Admin => denied(format!("{name} takes the role admin")),
            Class::Operate => denied(format!("{name} takes the role operator")),
            Class::Use | Class::Private => denied(format!("no policy permits {name}")),
        })
    }

    /// Whether the caller may read this session or turn.
    fn may_read(&self, cx: &Context, action: &Action, target: &Target, owner: Option<&str>, policies: &AccessPolicies) -> bool {
        let access = Access { principal: cx.principal(), attributes: cx.attributes(), action, kind: target.0, id: &target.1, owner };
        policies.decide(&access).allowed
    }

    async fn own_sessions(&self, cx: &Context, list: &mut ListSessionsResponse) -> Result<()> {
        let (action, policies) = (self.action("Agents.get_session")?, self.policies.current());
        let ids: Vec<&str> = list.sessions.iter().map(|session| session.id.as_str()).collect();
        let owners = self.store.owners_of_sessions(cx.tenant(), &ids).await?;
        list.sessions.retain(|session| {
            let owner = owners.get(&session.id).map(String::as_str);
            self.may_read(cx, &action, &("session", session.id.clone()), owner, &policies)
        });
        Ok(())
    }

    async fn own_turns(&self, cx: &Context, list: &mut ListTurnsResponse) -> Result<()> {
        let (action, policies) = (self.action("Agents.get_turn")?, self.policies.current());
        let ids: Vec<&str> = list.turns.iter().map(|turn| turn.id.as_str()).collect();
        // One that was handed over is another's than whoever began it.
        let noted = self.store.owners(cx.tenant(), &ids).await?;
        list.turns.retain(|turn| {
            let owner = noted.get(&turn.id).or(Some(&turn.principal)).map(String::as_str).filter(|owner| !owner.is_empty());
            self.may_read(cx, &action, &("turn", turn.id.clone()), owner, &policies)
        });
        Ok(())
    }

    /// Of turns whose traces the caller may read. Who owns them has been found out already.
    fn own_spans(&self, cx: &Context, list: &mut ListSpansResponse) -> Result<()> {
        let (action, policies) = (self.action("Telemetry.get_turn_trace")?, self.policies.current());
        let mut may: HashMap<String, bool> = HashMap::new();
        list.spans.retain(|record| {
            let owner = Some(record.principal.as_str()).filter(|owner| !owner.is_empty());
            let ask = || self.may_read(cx, &action, &("turn", record.turn_id.clone()), owner, &policies);
            *may.entry(record.turn_id.clone()).or_insert_with(ask)
        });
        Ok(())
    }
}

fn denied(message: String) -> Error {
    Error::new(Code::PermissionDenied, message).with_reason("not_authorized")
}

#[async_trait::async_trait]
impl Guard for Authorizer {
    async fn check(&self, cx: &Context, action: &'static str, request: &Message) -> Result<()> {
        let (action, policies) = (self.action(action)?, self.policies.current());
        let targets = match (targets(request), action.class) {
            (Some(targets), _) => targets,
            (None, Class::Use | Class::Admin | Class::Operate) => Vec::new(),
            // Whose it is cannot be found out.
            (None, Class::Own | Class::Private) => return Err(denied(format!("no policy knows what {} is about", action.name()))),
        };
        if targets.is_empty() {
            let owner = self.owner(cx, action.class, None).await?;
            return self.decide(cx, &action, None, owner.as_deref(), &policies);
        }
        for target in &targets {
            let owner = self.owner(cx, action.class, Some(target)).await?;
            self.decide(cx, &action, Some(target), owner.as_deref(), &policies)?;
        }
        Ok(())
    }

    async fn answered(&self, cx: &Context, action: &'static str, answer: &mut Message) -> Result<()> {
        let made = match action {
            "Agents.create_agent" => answer.downcast_ref::<Agent>().map(|made| &made.id),
            "Agents.create_session" => answer.downcast_ref::<Session>().map(|made| &made.id),
            "Prompts.create_prompt" => answer.downcast_ref::<Prompt>().map(|made| &made.id),
            _ => None,
        };
        if let Some(id) = made {
            return self.store.put_owner(cx.principal(), id).await;
        }
        if let Some(list) = answer.downcast_mut::<ListSessionsResponse>() {
            return self.own_sessions(cx, list).await;
        }
        if let Some(list) = answer.downcast_mut::<ListSpansResponse>() {
            return self.own_spans(cx, list);
        }
        match answer.downcast_mut::<ListTurnsResponse>() {
            Some(list) => self.own_turns(cx, list).await,
            None => Ok(()),
        }
    }
}
