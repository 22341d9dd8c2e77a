//! `distribution diff`: what one manifest has that another has not.
//!
//! Entries of lists are the same where they have the same `id` (or `name`), wherever they stand; comments, order of keys and
//! ways of writing count for nothing.

use std::collections::BTreeMap;

use llama_stack_core::{Code, Error, Result, manifest};
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::Source;
use crate::output::{Output, Tone};

#[derive(Debug, PartialEq, Serialize)]
struct Change {
    /// `providers.inference[local].config.models[m].context_length`
    path: String,
    /// What the first has; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Value>,
    /// What the second has.
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<Value>,
}

#[derive(Serialize)]
struct Report {
    a: String,
    b: String,
    same: bool,
    changes: Vec<Change>,
}

pub(super) fn run(a: &str, b: &str, text: bool, exit_code: bool, output: &Output) -> Result<()> {
    let (first, second) = (Source::find(a)?, Source::find(b)?);
    let changes = changes(&read(&first)?, &read(&second)?);
    let same = if text { first.text == second.text } else { changes.is_empty() };
    let report = Report { a: first.name.clone(), b: second.name.clone(), same, changes };
    output.result(&report, |report| if text { by_line(&first, &second, output) } else { by_meaning(report, output) })?;
    if exit_code && !same { Err(Error::new(Code::Aborted, format!("{a} and {b} differ"))) } else { Ok(()) }
}

/// As it is written: variables are compared by name, whatever they hold here.
pub(super) fn read(source: &Source) -> Result<Value> {
    manifest::yaml(&source.text, &source.name)
}

fn changes(a: &Value, b: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), Some(a), Some(b), &mut changes);
    changes
}

fn compare(path: String, a: Option<&Value>, b: Option<&Value>, changes: &mut Vec<Change>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (a, b) {
        (Some(a), Some(b)) if a == b => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                compare(below(key), Some(value), b.get(key), changes);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(below(key), None, Some(value), changes);
            }
        }
        (Some(Value::Array(first)), Some(Value::Array(second))) => {
            let (Some(first), Some(second)) = (named(first), named(second)) else {
                changes.push(Change { path, a: a.cloned(), b: b.cloned() });
                return;
            };
            let keys = first
                .iter()
                .map(|(key, _)| *key)
                .chain(second.iter().map(|(key, _)| *key).filter(|key| !first.iter().any(|(had, _)| had == key)));
            let (had, has): (BTreeMap<_, _>, BTreeMap<_, _>) = (first.iter().copied().collect(), second.iter().copied().collect());
            for key in keys {
                compare(format!("{path}[{key}]"), had.get(key).copied(), has.get(key).copied(), changes);
            }
        }
        (a, b) => changes.push(Change { path, a: a.cloned(), b: b.cloned() }),
    }
}

/// The entries of a list by what they are called, where each is called something of its own.
fn named(list: &[Value]) -> Option<Vec<(&str, &Value)>> {
    let name = |value: &'_ Value| -> Option<String> { value.get("id").or_else(|| value.get("name"))?.as_str().map(str::to_owned) };
    let mut seen = std::collections::HashSet::new();
    let unique = list.iter().all(|value| name(value).is_some_and(|name| seen.insert(name)));
    let entry = |value| -> Option<(&str, &Value)> {
        let value: &Value = value;
        Some((value.get("id").or_else(|| value.get("name"))?.as_str()?, value))
    };
    if unique { list.iter().map(entry).collect() } else { None }
}

fn by_meaning(report: &Report, output: &Output) -> String {
    if report.same {
        return format!("{} and {} mean the same\n", report.a, report.b);
    }
    let short = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() > 100 { format!("{}…", text.chars().take(99).collect::<String>()) } else { text }
    };
    let line = |change: &Change| {
        let path = &change.path;
        match (&change.a, &change.b) {
            (Some(a), Some(b)) => output.paint(Tone::Warning, &format!("~ {path}: {} -> {}", short(a), short(b))),
            (Some(a), None) => output.paint(Tone::Bad, &format!("- {path}: {}", short(a))),
            (None, Some(b)) => output.paint(Tone::Good, &format!("+ {path}: {}", short(b))),
            (None, None) => path.clone(),
        }
    };
    let lines: String = report.changes.iter().map(|change| line(change) + "\n").collect();
    format!("from {} to {}\n{lines}", report.a, report.b)
}

fn by_line(first: &Source, second: &Source, output: &Output) -> String {
    let diff = TextDiff::from_lines(&first.text, &second.text);
    let text = diff.unified_diff().header(&first.name, &second.name).to_string();
    let paint = |line: &str| match line.chars().next() {
        Some('+') => output.paint(Tone::Good, line),
        Some('-') => output.paint(Tone::Bad, line),
        _ => line.to_owned(),
    };
    text.lines().map(|line| paint(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_matched_by_what_they_are_called() {
        let a = json!({ "providers": { "tools": [ { "id": "a", "type": "x" }, { "id": "b", "type": "y" } ] }, "name": "one" });
        let b =
            json!({ "name": "two", "providers": { "tools": [ { "id": "b", "type": "y" }, { "id": "a", "type": "z" }, { "id": "c" } ] } });
        let found = changes(&a, &b);
        let told: Vec<(&str, bool, bool)> =
            found.iter().map(|change| (change.path.as_str(), change.a.is_some(), change.b.is_some())).collect();
        assert_eq!(told, [("providers.tools[a].type", true, true), ("providers.tools[c]", false, true), ("name", true, true)]);
        assert!(changes(&a, &a).is_empty());
    }

    #[test]
    fn lists_without_names_are_compared_whole() {
        let found = changes(&json!({ "models": ["a", "b"] }), &json!({ "models": ["a"] }));
        assert_eq!(found, [Change { path: "models".into(), a: Some(json!(["a", "b"])), b: Some(json!(["a"])) }]);
    }
}
