use llama_stack_policy::{Decision, Policy, Question};

use crate::history::AuditLog;

/// A policy whose decisions are in the audit log: who wanted which tool called, and what decided. No arguments.
pub(crate) struct Audited<P>(pub(crate) P, pub(crate) AuditLog);

impl<P: Policy> Policy for Audited<P> {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let decision = self.0.decide(question);
        let (tenant, principal) = (question.principal.tenant.as_str(), question.principal.id.as_str());
        let (agent, tool) = (question.agent_id, question.tool.name.as_str());
        if matches!(decision, Decision::Allow { .. }) {
            tracing::debug!(target: "llama_stack::audit", tenant, principal, agent, tool, %decision, "policy decided");
        } else {
            tracing::info!(target: "llama_stack::audit", tenant, principal, agent, tool, %decision, "policy decided");
        }
        self.1.tool(question, &decision);
        decision
    }
}
