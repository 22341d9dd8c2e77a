//! Policy: whether a call of a tool runs, waits for a person, or is refused.
//!
//! ```text
//! manifest ─ files, text, rule_of_two ──> CedarPolicy (parsed and checked once, at start)
//!                                             │
//! Question ── who, agent, tool, arguments, ───┴─ call?            no ──> Deny
//!             what the session has seen          call_unattended? no ──> Ask
//!                                                                 yes ─> Allow
//! ```
//!
//! The language is [Cedar](https://docs.cedarpolicy.com); `schema.cedarschema` says what a policy can speak of, and
//! `rule_of_two.cedar` is what holds where the manifest names nothing else. Nothing here does I/O after the start.

pub mod access;
mod arguments;
mod cedar;
mod facts;
mod from_manifest;
mod request;
mod rule;
mod shortcut;
mod sources;

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

pub use cedar::CedarPolicy;
pub use facts::{Facts, labels, tainted};
pub use llama_stack_core::Principal;
pub use sources::Source;

/// What every policy is checked against, in Cedar's schema language.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// Decides on each call of a tool before it runs. Pure, quick, no I/O.
pub trait Policy: Send + Sync + 'static {
    /// The same question has the same answer, for as long as the process runs.
    fn decide(&self, question: &Question<'_>) -> Decision;
}

/// A call that a model wants to make.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub principal: &'a Principal,
    pub agent_id: &'a str,
    pub tool: &'a Facts,
    /// As the tool will get them: what was decided on must be what is sent, so a call is sent from this value and not
    /// from the text that it was read from (in which a key may stand twice).
    pub arguments: &'a Value,
    /// The [`labels`] of all text in the session so far.
    pub seen: &'a BTreeSet<String>,
}

/// What a policy says, and which of its policies decided. Ids are sorted.
///
/// Displayed as journals keep it: `allow:<ids>`, `ask:<ids>` or `deny:<ids>`, ids parted by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs. `policies` permit it.
    Allow { policies: Vec<String> },
    /// It waits for a person. `policies` forbid it to run unattended; none: nothing permits that.
    Ask { policies: Vec<String> },
    /// It does not run. `policies` forbid it, or failed; none: nothing permits it. `reason` is for the model and the journal.
    Deny { policies: Vec<String>, reason: String },
}

impl Decision {
    /// The ids of the policies that decided.
    pub fn policies(&self) -> &[String] {
        match self {
            Self::Allow { policies } | Self::Ask { policies } | Self::Deny { policies, .. } => policies,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Allow { .. } => "allow",
            Self::Ask { .. } => "ask",
            Self::Deny { .. } => "deny",
        };
        write!(f, "{word}:{}", self.policies().join(","))
    }
}
