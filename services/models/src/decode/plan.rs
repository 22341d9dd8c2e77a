//! Everything that a request asks of an engine, checked against the model before any engine sees it.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::SamplingParams;

use crate::constraint::Constraint;

use super::{grammar::Grammar, lexicon::Lexicon, sampler::Sampling};

pub struct Plan {
    /// Never empty; every token is one of the model's.
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    pub grammar: Option<Grammar>,
    /// With the prompt within the context. 0 where the prompt alone is wanted.
    pub max_tokens: u32,
    /// 1 to 16.
    pub choices: u32,
    /// Score tokens, with so many alternatives.
    pub score: Option<usize>,
    /// Score the prompt's as well: an engine reads its first token, and the chooser says the others as if they were the answer.
    pub score_prompt: bool,
}

/// What chats and completions ask for alike.
pub(super) struct Wanted {
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: SamplingParams,
    pub(super) constraint: Option<Constraint>,
    pub(super) choices: u32,
    pub(super) score: Option<usize>,
    pub(super) score_prompt: bool,
}

impl Wanted {
    /// `max_tokens` stands in where the request names no number.
    pub(super) fn plan(self, lexicon: &Lexicon, max_tokens: Option<u32>) -> Result<Plan> {
        if self.prompt.is_empty() {
            return Err(Error::invalid("prompt", "the prompt is empty"));
        }
        let max_tokens = room(lexicon.context_length, self.prompt.len(), self.sampling.max_tokens, max_tokens)?;
        let grammars = || lexicon.grammars.as_ref().ok_or_else(|| Error::invalid("model", "this model writes no text"));
        let grammar = self.constraint.map(|constraint| Grammar::new(grammars()?, &constraint, &lexicon.ends)).transpose()?;
        let sampling = Sampling::new(&self.sampling, lexicon.defaults);
        let (choices, score, score_prompt) = (self.choices, self.score, self.score_prompt);
        Ok(Plan { prompt: self.prompt, sampling, grammar, max_tokens, choices, score, score_prompt })
    }
}

/// Tokens for the answer: what was asked for, or else what fits.
///
/// # Errors
/// `InvalidArgument` (`context_length_exceeded`) with both numbers.
fn room(context: u32, prompt: usize, asked: Option<u32>, default: Option<u32>) -> Result<u32> {
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    let needed = prompt.saturating_add(asked.unwrap_or(1));
    if needed > context {
        return Err(Error::context_length(context, needed));
    }
    let left = context - prompt;
    Ok(asked.unwrap_or_else(|| default.map_or(left, |default| default.clamp(1, left))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_context_leaves() {
        assert_eq!(room(100, 60, None, None).unwrap(), 40);
        assert_eq!(room(100, 60, None, Some(16)).unwrap(), 16);
        assert_eq!(room(100, 60, None, Some(64)).unwrap(), 40);
        assert_eq!(room(100, 60, Some(40), Some(16)).unwrap(), 40);
    }

    #[test]
    fn a_context_that_is_exceeded_names_both_numbers() {
        let error = room(100, 60, Some(41), None).unwrap_err();
        assert_eq!(error.reason(), Some("context_length_exceeded"));
        assert!(error.message().contains("100") && error.message().contains("101"), "{}", error.message());
        assert!(room(100, 100, None, None).is_err());
    }
}
