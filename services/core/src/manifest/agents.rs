//! What the manifest says of agents.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Lines;
use crate::Result;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// Bounds of turns that set none.
    pub limits: AgentLimits,
    /// What models cost, by model id, for `max_cost` and `Turn.cost`.
    pub prices: BTreeMap<String, Price>,
    /// How long a person may take to decide on a call. Default a day.
    pub approval_seconds: i64,
    /// How long a turn stays with a process that is gone or stuck before another goes on with it: long beside what the
    /// processes' clocks differ by. Default 15, at least 3.
    pub lease_seconds: u32,
    /// Agents that are there from the start, by id.
    pub declared: BTreeMap<String, DeclaredAgent>,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            limits: AgentLimits::default(),
            prices: BTreeMap::new(),
            approval_seconds: 86_400,
            lease_seconds: 15,
            declared: BTreeMap::new(),
        }
    }
}

impl Agents {
    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        if self.lease_seconds < 3 {
            return Err(lines.error("agents.lease_seconds", &format!("is {}; it must be at least 3", self.lease_seconds)));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentLimits {
    pub max_steps: u32,
    pub max_seconds: u32,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self { max_steps: 16, max_seconds: 600 }
    }
}

/// For a million tokens each, in any one currency.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    /// Of input that did not have to be computed again. Default: as `input`.
    pub cached_input: Option<f64>,
}

impl Price {
    /// Of these tokens; cached ones are part of the prompt's.
    pub fn of(&self, prompt: u32, cached: u32, completion: u32) -> f64 {
        let cached = cached.min(prompt);
        let fresh = f64::from(prompt - cached) * self.input;
        let again = f64::from(cached) * self.cached_input.unwrap_or(self.input);
        (fresh + again + f64::from(completion) * self.output) / 1e6
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredAgent {
    pub model: String,
    pub name: String,
    /// When to call it, for the agents that may.
    pub description: String,
    pub instructions: String,
    /// Tools of this stack, by name.
    pub tools: Vec<String>,
    pub agents: Vec<DeclaredAgentTool>,
    pub mcp_servers: Vec<DeclaredServer>,
    /// Which of its tools wait for a person's approval.
    pub require_approval: Vec<String>,
    pub input_shields: Vec<String>,
    pub tool_argument_shields: Vec<String>,
    pub tool_result_shields: Vec<String>,
    pub retrieved_shields: Vec<String>,
    pub output_shields: Vec<String>,
    pub output_moderation: DeclaredModeration,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub max_tokens: Option<u32>,
    /// How much a model that thinks shall think, for example `low`; empty: its own.
    pub reasoning_effort: String,
    /// Whether it may make several calls at once; without it the model's own.
    pub parallel_tool_calls: Option<bool>,
    /// Leave out the oldest messages where a history does not fit.
    pub truncate: bool,
    /// Summarise the history above this many tokens; 0: never.
    pub compact_threshold: u32,
    pub limits: DeclaredLimits,
}

impl DeclaredAgent {
    /// Each shield that it names, with its path in it.
    fn shields(&self) -> impl Iterator<Item = (String, &str)> {
        let lists = [
            ("input_shields", &self.input_shields),
            ("tool_argument_shields", &self.tool_argument_shields),
            ("tool_result_shields", &self.tool_result_shields),
            ("retrieved_shields", &self.retrieved_shields),
            ("output_shields", &self.output_shields),
        ];
        let listed = lists.into_iter();
        listed.flat_map(|(list, ids)| ids.iter().enumerate().map(move |(at, id)| (format!("{list}[{at}]"), id.as_str())))
    }
}

impl Agents {
    /// Each shield that declared agents name, with its path in the manifest.
    pub fn shields(&self) -> impl Iterator<Item = (String, &str)> {
        let declared = self.declared.iter();
        declared.flat_map(|(id, agent)| agent.shields().map(move |(path, shield)| (format!("agents.declared.{id}.{path}"), shield)))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredLimits {
    pub max_steps: u32,
    pub max_tokens: u32,
    pub max_seconds: u32,
    pub max_tool_calls: u32,
    pub max_cost: f64,
    pub max_depth: u32,
}

/// When the words of an answer are shown that output shields judge.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredModeration {
    pub mode: ModerationMode,
    /// With `windowed`: tokens of a window; 0: the contract's default.
    pub window_tokens: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModerationMode {
    #[default]
    Held,
    Windowed,
    After,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredAgentTool {
    /// Another declared agent.
    pub agent: String,
    pub name: String,
    pub description: String,
    pub handoff: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeclaredServer {
    pub label: String,
    pub url: String,
    /// A tool group of this stack, in place of `url`.
    pub connector: String,
    pub allowed_tools: Vec<String>,
    pub require_approval: DeclaredApproval,
}

/// `always`, `never`, or the list of tools that need none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclaredApproval {
    #[default]
    Always,
    Never,
    Except(Vec<String>),
}
