//! JSON: members as they are written, each under the names that lead to it.

use indexmap::IndexMap;
use llama_stack_core::Result;
use serde_json::value::RawValue;

use super::written::{At, Written};
use crate::{Kind, failure};

/// A member that is longer is taken apart.
const LONG: usize = 4 << 10;
/// Deeper than this, nothing is taken apart.
const DEEP: usize = 32;

pub(super) fn read(text: &str, written: &mut Written) -> Result<()> {
    let text = text.trim_start_matches('\u{feff}');
    // Checks all of it, however deeply it is nested, and copies nothing.
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| failure::malformed("JSON", error))?;
    let mut lines = Lines { text, seen: 0, number: 1 };
    take_apart(whole, &mut Vec::new(), &mut lines, written)
}

/// One value a line.
pub(super) fn read_lines(text: &str, written: &mut Written) -> Result<()> {
    for (number, line) in (1_u32..).zip(text.lines()) {
        let line = line.trim_matches(['\u{feff}', ' ', '\t']);
        if line.is_empty() {
            continue;
        }
        let checked: Result<&RawValue, _> = serde_json::from_str(line);
        checked.map_err(|error| failure::malformed("JSON lines", format!("line {number}: {error}")))?;
        written.push(Kind::Table, line, At { page: 0, lines: (number, number) })?;
    }
    Ok(())
}

fn take_apart(value: &RawValue, path: &mut Vec<String>, lines: &mut Lines<'_>, written: &mut Written) -> Result<()> {
    let raw = value.get();
    if path.len() < DEEP && (path.is_empty() || raw.len() > LONG) {
        if raw.starts_with('{')
            && let Ok(members) = serde_json::from_str::<IndexMap<String, &RawValue>>(raw)
        {
            for (name, member) in members {
                one(&format!("{name}: "), name, member, path, lines, written)?;
            }
            return Ok(());
        }
        if raw.starts_with('[')
            && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw)
        {
            for (at, item) in items.into_iter().enumerate() {
                one("", at.to_string(), item, path, lines, written)?;
            }
            return Ok(());
        }
    }
    push("", value, path, lines, written)
}

fn one(label: &str, name: String, value: &RawValue, path: &mut Vec<String>, lines: &mut Lines<'_>, written: &mut Written) -> Result<()> {
    if value.get().len() <= LONG || !value.get().starts_with(['{', '[']) {
        return push(label, value, path, lines, written);
    }
    path.push(name);
    let done = take_apart(value, path, lines, written);
    path.pop();
    done
}

fn push(label: &str, value: &RawValue, path: &[String], lines: &mut Lines<'_>, written: &mut Written) -> Result<()> {
    written.below(&path.iter().map(String::as_str).collect::<Vec<_>>());
    written.push(Kind::Table, &format!("{label}{}", value.get()), At { page: 0, lines: lines.of(value.get()) })
}

/// Counts lines up to a part of a text; parts come in their order.
struct Lines<'t> {
    text: &'t str,
    seen: usize,
    number: u32,
}

impl Lines<'_> {
    fn of(&mut self, part: &str) -> (u32, u32) {
        let count = |text: &str| u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX);
        let start = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).clamp(self.seen, self.text.len());
        self.number = self.number.saturating_add(count(&self.text[self.seen..start]));
        self.seen = start;
        (self.number, self.number.saturating_add(count(part)))
    }
}
