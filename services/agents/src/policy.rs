//! What may be done with a tool, decided outside the model.

use std::collections::BTreeSet;

use llama_stack_core::Principal;
use llama_stack_proto::v1::Tool;
use serde_json::Value;

/// Decides on each call of a tool before it runs. Pure and quick: no I/O.
pub trait Policy: Send + Sync + 'static {
    fn decide(&self, question: &Question<'_>) -> Decision;
}

/// What is asked.
pub struct Question<'a> {
    pub principal: &'a Principal,
    /// Empty for a turn that brought its own configuration.
    pub agent_id: &'a str,
    pub tool: &'a Facts,
    pub arguments: &'a Value,
    /// The provenance of everything that the model has read by now.
    pub seen: &'a BTreeSet<String>,
}

/// What is known of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    /// Its tool group, or the label of its MCP server.
    pub group: String,
    pub reads_untrusted: bool,
    pub reads_private: bool,
    pub changes_state: bool,
    /// It runs outside this stack.
    pub remote: bool,
}

impl Facts {
    /// As the tool's provider declares them.
    pub fn of(tool: &Tool) -> Self {
        Self {
            name: tool.definition.as_ref().map(|definition| definition.name.clone()).unwrap_or_default(),
            group: tool.group_id.clone(),
            reads_untrusted: tool.reads_untrusted,
            reads_private: tool.reads_private,
            changes_state: tool.changes_state,
            remote: false,
        }
    }
}

/// Each with the ids of the policies that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow {
        policies: Vec<String>,
    },
    /// Only if a person agrees.
    Ask {
        policies: Vec<String>,
    },
    Deny {
        policies: Vec<String>,
        reason: String,
    },
}
