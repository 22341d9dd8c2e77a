//! What becomes an event of the audit log, from whoever decided.

use std::{net::IpAddr, sync::Arc};

use llama_stack_core::Context;
use llama_stack_identity::Decision as Access;
use llama_stack_policy::{Decision, Question};
use llama_stack_proto::v1::{AuditEvent, AuditKind};

use super::log::{Decided, Log};

/// Characters of an id.
const LONGEST: usize = 128;
/// The tenant of what is about no caller: none can be named so.
pub(super) const NOBODYS: &str = "";
/// Who shows a credential that is none.
const UNKNOWN: &str = "unknown";

/// Hands decisions to the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AuditLog(Arc<Log>);

impl AuditLog {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self(log)
    }

    /// Whether a caller may make a call.
    pub(crate) fn access(&self, cx: &Context, decision: &Access<'_>) {
        let event = AuditEvent {
            action: decision.action.into(),
            resource_kind: decision.kind.into(),
            resource_id: short(decision.id),
            outcome: if decision.allowed { "allowed" } else { "denied" }.into(),
            policies: decision.policies.to_vec(),
            ..of(cx, AuditKind::Access)
        };
        self.0.decided(Decided { event, is_plain: decision.allowed, tenant: cx.tenant() });
    }

    /// A credential that is missing or wrong. What was shown is not told here either. `action`: the route that was asked for.
    pub(crate) fn refused(&self, address: IpAddr, action: &str, reason: &str, request_id: &str) {
        if !self.0.takes_refusal(address) {
            return;
        }
        let action = short(action);
        tracing::info!(target: "llama_stack::audit", %address, action, reason, request_id, "credential refused");
        let event = AuditEvent { address: address.to_string(), action, reason: reason.into(), request_id: request_id.into(), ..refusal() };
        self.0.decided(Decided { event, is_plain: false, tenant: NOBODYS });
    }

    /// Whether an agent's call of a tool runs.
    pub(crate) fn tool(&self, question: &Question<'_>, decision: &Decision) {
        let outcome = match decision {
            Decision::Allow { .. } => "allow",
            Decision::Ask { .. } => "ask",
            Decision::Deny { .. } => "deny",
        };
        let event = AuditEvent {
            kind: AuditKind::Tool.into(),
            principal: question.principal.id.clone(),
            action: "call".into(),
            resource_kind: "tool".into(),
            resource_id: short(&question.tool.name),
            outcome: outcome.into(),
            policies: decision.policies().to_vec(),
            agent_id: question.agent_id.into(),
            ..AuditEvent::default()
        };
        self.0.decided(Decided { event, is_plain: outcome == "allow", tenant: &question.principal.tenant });
    }

    /// What a shield found.
    pub(crate) fn shield(&self, cx: &Context, shield: &str, stage: &str, outcome: &'static str) {
        let event = AuditEvent {
            action: stage.into(),
            resource_kind: "shield".into(),
            resource_id: short(shield),
            outcome: outcome.into(),
            ..of(cx, AuditKind::Shield)
        };
        self.0.decided(Decided { event, is_plain: outcome == "safe", tenant: cx.tenant() });
    }
}

/// An id is what a caller says it is, and a caller may say much.
fn short(id: &str) -> String {
    id.chars().take(LONGEST).collect()
}

pub(super) fn refusal() -> AuditEvent {
    AuditEvent { kind: AuditKind::Credential.into(), principal: UNKNOWN.into(), outcome: "refused".into(), ..AuditEvent::default() }
}

fn of(cx: &Context, kind: AuditKind) -> AuditEvent {
    AuditEvent {
        kind: kind.into(),
        principal: cx.principal().id.clone(),
        credential: cx.credential().into(),
        request_id: cx.request_id().unwrap_or_default().into(),
        ..AuditEvent::default()
    }
}
