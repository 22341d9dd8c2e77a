//! `safety:` which shields judge every turn, and what happens where one cannot judge.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;

use super::Lines;
use crate::Result;

/// Of all turns of the stack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Safety {
    /// How long one shield may take for one text. Default 10.
    pub timeout_seconds: f64,
    pub on_failure: OnFailure,
    /// Shields of every turn, besides those of its agent and of its request.
    pub defaults: DefaultShields,
    /// Shields that judge an input while the model reads it already. Nothing that it says is shown, kept or acted on before
    /// they let the input pass as it was. Default none: what a shield is to redact must not reach the model first.
    pub beside_model: Vec<String>,
}

impl Default for Safety {
    fn default() -> Self {
        Self { timeout_seconds: 10.0, on_failure: OnFailure::Closed, defaults: DefaultShields::default(), beside_model: Vec::new() }
    }
}

/// What becomes of a text that a shield could not judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It does not pass.
    #[default]
    Closed,
    /// It passes, and the turn's journal says so.
    Open,
}

/// Ids of shields, by what they judge.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultShields {
    pub input: Vec<String>,
    /// Arguments of calls, before they run.
    pub tool_arguments: Vec<String>,
    pub tool_results: Vec<String>,
    /// Passages that a search found.
    pub retrieved: Vec<String>,
    pub output: Vec<String>,
}

impl DefaultShields {
    /// Each list with its name in the manifest.
    pub fn lists(&self) -> [(&'static str, &[String]); 5] {
        [
            ("input", &self.input),
            ("tool_arguments", &self.tool_arguments),
            ("tool_results", &self.tool_results),
            ("retrieved", &self.retrieved),
            ("output", &self.output),
        ]
    }

    /// Each shield that is named, with its path in the manifest.
    pub fn named(&self) -> impl Iterator<Item = (String, &str)> {
        let lists = self.lists().into_iter();
        lists.flat_map(|(list, ids)| ids.iter().enumerate().map(move |(at, id)| (format!("safety.defaults.{list}[{at}]"), id.as_str())))
    }
}

impl Safety {
    pub fn timeout(&self) -> Duration {
        // What is no time was refused when the manifest was read.
        Duration::try_from_secs_f64(self.timeout_seconds).unwrap_or(Duration::from_secs(10))
    }

    /// Each shield that is named, with its path in the manifest.
    pub fn named(&self) -> impl Iterator<Item = (String, &str)> {
        let beside = self.beside_model.iter().enumerate().map(|(at, id)| (format!("safety.beside_model[{at}]"), id.as_str()));
        self.defaults.named().chain(beside)
    }

    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        // An hour is longer than any turn should wait for one text.
        if !(self.timeout_seconds > 0.0 && self.timeout_seconds <= 3_600.0) {
            return Err(lines.error("safety.timeout_seconds", "must be more than 0, and at most 3600"));
        }
        let mut seen = HashSet::new();
        for (path, id) in self.named() {
            let list = path.split('[').next().unwrap_or_default().to_owned();
            if id.is_empty() {
                return Err(lines.error(&path, "is empty; must be the id of a shield"));
            }
            if !seen.insert((list, id)) {
                return Err(lines.error(&path, &format!("{id:?} is named twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn safety(text: &str) -> Result<Safety> {
        Manifest::parse_with(&format!("version: 1\nname: t\n{text}"), "m.yaml", &|_| None).map(|manifest| manifest.safety)
    }

    #[test]
    fn what_is_not_said_is_closed_after_ten_seconds() {
        let silent = safety("").unwrap();
        assert_eq!((silent.timeout(), silent.on_failure), (Duration::from_secs(10), OnFailure::Closed));
        let said = safety("safety:\n  timeout_seconds: 0.5\n  on_failure: open\n  defaults: { input: [a], output: [a, b] }\n").unwrap();
        assert_eq!((said.timeout(), said.on_failure), (Duration::from_millis(500), OnFailure::Open));
        let named: Vec<_> = said.defaults.named().collect();
        assert_eq!(named[2], ("safety.defaults.output[1]".to_owned(), "b"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let message = |text: &str| safety(text).unwrap_err().message().to_owned();
        assert!(message("safety:\n  timeout_seconds: 0\n").starts_with("m.yaml:4: safety.timeout_seconds: must be more than 0"));
        assert!(message("safety:\n  timeout_seconds: -1\n").contains("safety.timeout_seconds: must be"));
        assert!(message("safety:\n  on_failure: ajar\n").starts_with("m.yaml:4: safety.on_failure: unknown variant"));
        assert!(message("safety:\n  defaults:\n    inputs: [a]\n").starts_with("m.yaml:5: safety.defaults.inputs: unknown field"));
        assert_eq!(
            message("safety:\n  defaults:\n    input:\n    - a\n    - a\n"),
            "m.yaml:7: safety.defaults.input[1]: \"a\" is named twice"
        );
        assert_eq!(message("safety:\n  beside_model: [a, a]\n"), "m.yaml:4: safety.beside_model[1]: \"a\" is named twice");
    }
}
