//! Source code: functions and types stay together, as far as their indentation shows them.

use llama_stack_core::Result;

use super::{
    text,
    written::{At, Written},
};
use crate::Kind;

/// A part begins with a line at the margin after an empty line, unless that line closes what is open.
pub(super) fn read(code: &str, written: &mut Written) -> Result<()> {
    let begins = |_: &str, line: &str| !line.starts_with(char::is_whitespace) && !line.starts_with(['}', ')', ']']) && !closes(line);
    for (lines, part) in text::parts(code, begins) {
        written.push(Kind::Code, part, At { page: 0, lines })?;
    }
    Ok(())
}

/// Words that end, or go on with, what an earlier line began.
fn closes(line: &str) -> bool {
    let word = line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    matches!(word, "end" | "else" | "elif" | "elseif" | "except" | "rescue" | "catch" | "finally" | "ensure" | "fi" | "done" | "esac")
}
