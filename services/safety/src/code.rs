//! `inline::code-rules`: insecure code in what a model writes or a tool is asked to run.
//!
//! ```text
//! text ─ snippets ─┬─ fences, with their language or a guess      ─ rules of the language ─ findings by CWE
//!                  └─ arguments of calls, by their names
//! ```
//! The rules are in `code/rules`, a file per language, each with examples that a test runs.

mod rule;
mod snippets;

use llama_stack_core::{Deps, Error, Result, Safety};
use llama_stack_proto::v1::{Shield, ShieldStage};
use serde::Deserialize;

use self::{
    rule::{Language, Rule, Severity},
    snippets::{Snippet, snippets},
};
use crate::rules::{self, Hit, Level, Piece, RuleShield, Rules, Stage};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whose rules count. Default: all.
    languages: Option<Vec<Language>>,
    /// From this severity on the text is stopped. Default: `high`; `never` only warns.
    #[serde(default = "high")]
    block: Block,
    /// Findings below this severity are not told.
    #[serde(default = "low")]
    least: Severity,
    /// Rules that do not count, by their ids.
    #[serde(default)]
    ignore: Vec<String>,
    /// Default: what the model writes, and what it asks tools to do.
    #[serde(default = "written")]
    stages: Vec<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Block {
    Low,
    Medium,
    High,
    Never,
}

impl Block {
    fn stops(self, severity: Severity) -> bool {
        match self {
            Self::Low => true,
            Self::Medium => severity >= Severity::Medium,
            Self::High => severity == Severity::High,
            Self::Never => false,
        }
    }
}

fn high() -> Block {
    Block::High
}

fn low() -> Severity {
    Severity::Low
}

fn written() -> Vec<Stage> {
    vec![Stage::ToolArguments, Stage::Output]
}

struct CodeRules {
    rules: Vec<Rule>,
    block: Block,
    stages: Vec<Stage>,
}

/// # Errors
/// `InvalidArgument` for a rule to ignore that there is not, and where no rule is left.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<std::sync::Arc<dyn Safety>> {
    rules::check_stages(&config.stages)?;
    let mut all = rule::all()?;
    for (index, id) in config.ignore.iter().enumerate() {
        if !all.iter().any(|rule| rule.id == *id) {
            let message = format!("no rule {id:?}; their ids are in docs/safety-rules.md");
            return Err(Error::invalid(format!("config.ignore[{index}]"), message));
        }
    }
    let wanted = |language: Language| config.languages.as_ref().is_none_or(|languages| languages.contains(&language));
    all.retain(|rule| wanted(rule.language) && rule.severity >= config.least && !config.ignore.contains(&rule.id));
    if all.is_empty() {
        return Err(Error::invalid("config.languages", "no rule is left: the shield would find nothing"));
    }
    Ok(RuleShield::provider(CodeRules { rules: all, block: config.block, stages: config.stages }, &deps))
}

impl CodeRules {
    fn find_in(&self, snippet: &Snippet, hits: &mut Vec<Hit>) {
        for rule in self.rules.iter().filter(|rule| rule.language == snippet.language) {
            for range in rule.find(snippet.code.text()) {
                let level = if self.block.stops(rule.severity) { Level::Block } else { Level::Warn };
                hits.push(Hit {
                    code: rule.cwe.clone(),
                    range: snippet.code.source(range),
                    detail: format!("{} ({}, {}): {}", rule.id, rule.cwe, rule.severity.name(), rule.message),
                    level,
                    mark: String::new(),
                });
            }
        }
    }
}

impl Rules for CodeRules {
    fn shield(&self) -> Shield {
        let mut categories: Vec<(String, String)> = Vec::new();
        for rule in &self.rules {
            if !categories.iter().any(|(code, _)| *code == rule.cwe) {
                categories.push((rule.cwe.clone(), rule.message.clone()));
            }
        }
        categories.sort();
        rules::shield("inline::code-rules", "insecure code", &self.stages, categories)
    }

    fn find(&self, pieces: &[Piece<'_>], _stage: ShieldStage) -> Vec<Vec<Hit>> {
        let find = |piece: &Piece<'_>| {
            let mut hits = Vec::new();
            snippets(piece).iter().for_each(|snippet| self.find_in(snippet, &mut hits));
            hits
        };
        pieces.iter().map(find).collect()
    }

    fn user_message(&self, codes: &[String]) -> String {
        format!("This code is unsafe ({}) and is not passed on.", codes.join(", "))
    }
}

#[cfg(test)]
mod tests;
