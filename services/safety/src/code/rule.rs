//! A rule for insecure code, as its file says it.

use std::ops::Range;

use llama_stack_core::{Error, Result};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Language {
    Python,
    Javascript,
    Sql,
    Shell,
    Rust,
    C,
    Java,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Severity {
    Low,
    Medium,
    High,
}

impl Severity {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    language: Language,
    rules: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    cwe: String,
    severity: Severity,
    /// What is wrong, and what would be right.
    message: String,
    pattern: String,
    /// Lines that hold this are no finding.
    unless: Option<String>,
    /// Code that must be found, and code that must not.
    bad: Vec<String>,
    good: Vec<String>,
}

pub(super) struct Rule {
    pub(super) language: Language,
    pub(super) id: String,
    pub(super) cwe: String,
    pub(super) severity: Severity,
    pub(super) message: String,
    pattern: Regex,
    unless: Option<Regex>,
    #[cfg_attr(not(test), expect(dead_code, reason = "what the test of the rules reads"))]
    pub(super) examples: (Vec<String>, Vec<String>),
}

const FILES: [&str; 7] = [
    include_str!("rules/python.yaml"),
    include_str!("rules/javascript.yaml"),
    include_str!("rules/sql.yaml"),
    include_str!("rules/shell.yaml"),
    include_str!("rules/rust.yaml"),
    include_str!("rules/c.yaml"),
    include_str!("rules/java.yaml"),
];

/// # Errors
/// `Internal` for a file that is wrong: a defect of this build, which a test would have shown.
pub(super) fn all() -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for source in FILES {
        let file: File = serde_saphyr::from_str(source).map_err(|error| Error::internal("a file of code rules").with_source(error))?;
        for written in file.rules {
            rules.push(Rule::new(file.language, written)?);
        }
    }
    Ok(rules)
}

impl Rule {
    fn new(language: Language, written: Written) -> Result<Self> {
        let regex = |source: &str| {
            let built = RegexBuilder::new(source).multi_line(true).size_limit(2 << 20).build();
            built.map_err(|error| Error::internal(format!("the code rule {}", written.id)).with_source(error))
        };
        Ok(Self {
            language,
            pattern: regex(&written.pattern)?,
            unless: written.unless.as_deref().map(regex).transpose()?,
            id: written.id.clone(),
            cwe: written.cwe,
            severity: written.severity,
            message: written.message,
            examples: (written.bad, written.good),
        })
    }

    /// Where it holds.
    pub(super) fn find<'a>(&'a self, code: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.pattern.find_iter(code).map(|found| found.range()).filter(|range| {
            let from = code[..range.start].rfind('\n').map_or(0, |at| at + 1);
            let to = code[range.end..].find('\n').map_or(code.len(), |at| range.end + at);
            !range.is_empty() && self.unless.as_ref().is_none_or(|unless| !unless.is_match(&code[from..to]))
        })
    }
}
