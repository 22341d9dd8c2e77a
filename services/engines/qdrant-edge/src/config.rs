//! What a manifest may say.

use std::str::FromStr as _;

use llama_stack_core::{Error, Result};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `none`, or `scalar`: a byte for each number of a vector, a quarter of the memory. The originals stay on disk and re-score
    /// the best.
    pub quantization: Quantization,
    /// Whose stop words and word stems keyword search uses.
    pub language: String,
    /// Vectors that are not yet indexed are searched exactly, up to this many kilobytes (1 is one vector of 256 dimensions);
    /// above, an index is built in the background.
    pub index_above_kb: usize,
    /// Candidates that a search keeps: more find more and take longer. 0: as many as the index was built with.
    pub search_candidates: usize,
    /// Banks that are open at the same time. A bank that is closed is opened by its next request, within a tenth of a second.
    pub open_banks: usize,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    #[default]
    None,
    Scalar,
}

impl Default for Config {
    fn default() -> Self {
        Self { quantization: Quantization::None, language: "english".into(), index_above_kb: 10_000, search_candidates: 0, open_banks: 64 }
    }
}

impl Config {
    /// # Errors
    /// `InvalidArgument` for values that no engine can be built with.
    pub(crate) fn check(&self) -> Result<()> {
        if self.open_banks == 0 {
            return Err(Error::invalid("config.open_banks", "at least one bank must be open"));
        }
        if self.index_above_kb == 0 {
            return Err(Error::invalid("config.index_above_kb", "at least 1; a large number leaves all vectors to exact search"));
        }
        if qdrant_edge::Language::from_str(&self.language).is_err() {
            return Err(Error::invalid(
                "config.language",
                format!("no language {:?}; for example english, german or french", self.language),
            ));
        }
        Ok(())
    }
}
