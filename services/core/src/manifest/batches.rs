use serde::Deserialize;

use super::Lines;
use crate::Result;

/// How batches are run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batches {
    /// Lines that run at once in this process, of all batches together. Default 4.
    pub lines_at_once: usize,
    /// The most lines of one batch. Default 50,000, as OpenAI has it.
    pub max_lines: u64,
    /// The largest input, in bytes. Default 200 MiB, as OpenAI has it.
    pub max_bytes: u64,
}

impl Default for Batches {
    fn default() -> Self {
        Self { lines_at_once: 4, max_lines: 50_000, max_bytes: 200 << 20 }
    }
}

impl Batches {
    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        if !(1..=1_024).contains(&self.lines_at_once) {
            return Err(lines.error("batches.lines_at_once", &format!("is {}; it must be 1 to 1024", self.lines_at_once)));
        }
        if !(1..=1_000_000).contains(&self.max_lines) {
            return Err(lines.error("batches.max_lines", &format!("is {}; it must be 1 to 1000000", self.max_lines)));
        }
        Ok(())
    }
}
