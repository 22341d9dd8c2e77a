//! What a search needs of an index, checked against what the bank has.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Ranker, SearchMode};

use super::{condition::Condition, fusion};
use crate::index::{Hit, Search, Shape};

/// The parts of a search. One of them at least is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub vector: Option<Vec<f32>>,
    pub words: Option<String>,
    pub condition: Option<Condition>,
    /// Of each part.
    pub depth: usize,
    limit: usize,
    score_threshold: Option<f32>,
    ranker: Ranker,
}

impl Plan {
    /// # Errors
    /// `InvalidArgument` for a mode that the bank has not, for what that mode lacks, a vector of another dimension, or a filter
    /// that cannot be compared.
    pub fn new(shape: &Shape, search: &Search) -> Result<Self> {
        let mode = match search.mode {
            SearchMode::Unspecified if shape.dimension > 0 => SearchMode::Vector,
            SearchMode::Unspecified => SearchMode::Keyword,
            mode => mode,
        };
        let (vector, words) = (mode != SearchMode::Keyword, mode != SearchMode::Vector);
        if vector && shape.dimension == 0 {
            return Err(Error::invalid("mode", "this bank has no vectors: search it by keyword"));
        }
        if words && !shape.keyword {
            return Err(Error::invalid("mode", "this bank's words are not indexed: search it by vector"));
        }
        if vector {
            check_vector(shape, &search.vector, "vector")?;
        }
        if words && search.text.trim().is_empty() {
            return Err(Error::invalid("text", "this mode searches for words, and there is no text"));
        }
        fusion::weights(&search.ranker)?;
        let limit = search.limit as usize;
        Ok(Self {
            vector: vector.then(|| search.vector.clone()),
            words: words.then(|| search.text.clone()),
            condition: search.filter.as_ref().map(Condition::new).transpose()?,
            depth: if vector && words { fusion::depth(limit) } else { limit },
            limit,
            score_threshold: search.score_threshold,
            ranker: search.ranker.clone(),
        })
    }

    /// The parts' hits, each best first, as one answer.
    ///
    /// # Errors
    /// None that [`Plan::new`] has not found.
    pub fn answer(&self, vector: Vec<Hit>, words: Vec<Hit>) -> Result<Vec<Hit>> {
        let mut hits = match (&self.vector, &self.words) {
            (Some(_), Some(_)) => fusion::fuse(&self.ranker, vector, words)?,
            (Some(_), None) => vector,
            (None, _) => words,
        };
        fusion::sort(&mut hits);
        if let Some(threshold) = self.score_threshold {
            hits.retain(|hit| hit.score >= threshold);
        }
        hits.truncate(self.limit);
        Ok(hits)
    }
}

/// # Errors
/// `InvalidArgument` for another dimension than the bank's, or a number that is not finite.
pub fn check_vector(shape: &Shape, vector: &[f32], field: &str) -> Result<()> {
    if vector.len() != shape.dimension as usize {
        let message = format!("this bank's vectors have {} dimensions, this one has {}", shape.dimension, vector.len());
        return Err(Error::invalid(field, message));
    }
    if vector.iter().all(|number| number.is_finite()) { Ok(()) } else { Err(Error::invalid(field, "a vector's numbers must be finite")) }
}
