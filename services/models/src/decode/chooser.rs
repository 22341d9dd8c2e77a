//! Chooses each token of an answer from the raw logits of a step.

use std::sync::Arc;

use tokio::sync::mpsc;

use llama_stack_core::{Code, Error};

use super::{
    generation::{Control, End, Made, RESERVED},
    grammar::Grammar,
    lexicon::Lexicon,
    logprobs::{self, Scored},
    plan::Plan,
    sampler::Sampler,
};

/// Follows one answer. Pure but for its channel: the same logits give the same tokens.
pub struct Chooser {
    choice: u32,
    ends: Arc<[u32]>,
    /// Logits beyond are padding of the weights.
    vocabulary: usize,
    /// Score tokens, with so many alternatives.
    score: Option<usize>,
    sampler: Sampler,
    grammar: Option<Grammar>,
    /// The prompt's first token, until it was told, and those after it; only where they are scored.
    first: Option<u32>,
    unread: std::vec::IntoIter<u32>,
    /// Evaluations of prompts count on a token after the prompt, be it an end.
    scores_end: bool,
    /// Tokens that may still come.
    left: u32,
    out: mpsc::Sender<Made>,
    control: Arc<Control>,
    ended: bool,
}

impl Chooser {
    pub(super) fn new(choice: u32, plan: &Plan, lexicon: &Lexicon, out: mpsc::Sender<Made>, control: Arc<Control>) -> Self {
        let scored: &[u32] = if plan.score_prompt { plan.prompt.as_slice() } else { &[] };
        Self {
            choice,
            ends: lexicon.ends.clone(),
            vocabulary: lexicon.vocabulary.size(),
            score: plan.score,
            sampler: Sampler::new(plan.sampling.clone().for_choice(choice), &plan.prompt),
            grammar: plan.grammar.clone(),
            first: scored.first().copied(),
            unread: scored.get(1..).unwrap_or_default().to_vec().into_iter(),
            scores_end: plan.score_prompt,
            left: plan.max_tokens,
            out,
            control,
            ended: false,
        }
    }

    /// Tells the reader that the engine has begun, and how much of the prompt it knew.
    pub fn begun(&self, cached: u32) {
        drop(self.out.try_send(Made::Begun { choice: self.choice, cached }));
    }

    /// Whether the answer came to its end; if the engine lets go before, it has failed.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nobody wants more of it.
    pub fn is_over(&self) -> bool {
        self.ended || self.control.is_over(self.choice)
    }

    /// Tokens that come next whatever the logits: the rest of a prompt that is scored.
    pub fn ahead(&self) -> &[u32] {
        self.unread.as_slice()
    }

    /// The next token, or none: the end. `logits` are changed on the way.
    ///
    /// A last token is told and none comes back, for the engine need not compute what nobody will ask for.
    pub fn next(&mut self, logits: &mut [f32]) -> Option<u32> {
        if self.is_over() {
            self.ended = true;
            return None;
        }
        match self.step(logits) {
            Ok(token) => Some(token),
            Err(end) => {
                self.end(end);
                None
            }
        }
    }

    /// Breaks the answer off.
    pub fn fail(&mut self, error: Error) {
        if !self.ended {
            self.end(End::Failed(error));
        }
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        // There is room: tokens leave the last places free.
        drop(self.out.try_send(Made::End { choice: self.choice, end }));
    }

    fn step(&mut self, logits: &mut [f32]) -> Result<u32, End> {
        if let Some(first) = self.first.take() {
            self.prompt(first, Scored::first())?;
        }
        if let Some(token) = self.unread.next() {
            let scored = logprobs::score(logits, token, self.score.unwrap_or_default());
            self.prompt(token, scored)?;
            if self.left > 0 || !self.ahead().is_empty() {
                return Ok(token);
            }
        }
        if self.left == 0 {
            return Err(End::Length);
        }
        let allowed = self.grammar.as_mut().map(Grammar::allowed).transpose().map_err(End::Failed)?;
        let raw = self.score.map(|_| logits.to_vec());
        logits.iter_mut().skip(self.vocabulary).for_each(|padding| *padding = f32::NEG_INFINITY);
        let Some(token) = self.sampler.choose(logits, allowed.as_ref()) else {
            return Err(End::Failed(Error::internal("the model has no token left to choose from").with_reason("no_token")));
        };
        let scored = raw.zip(self.score).map(|(raw, top)| logprobs::score(&raw, token, top));
        if self.ends.contains(&token) {
            if let Some(scored) = scored.filter(|_| self.scores_end) {
                self.tell(Made::Last { choice: self.choice, id: token, scored })?;
            }
            return Err(End::Stop);
        }
        self.tell(Made::Token { choice: self.choice, id: token, scored })?;
        self.left = self.left.saturating_sub(1);
        let met = self.grammar.as_mut().map_or(Ok(false), |grammar| grammar.push(token)).map_err(End::Failed)?;
        match (met, self.left) {
            (true, _) => Err(End::Stop),
            (false, 0) => Err(End::Length),
            (false, _) => Ok(token),
        }
    }

    fn prompt(&self, id: u32, scored: Scored) -> Result<(), End> {
        self.tell(Made::Prompt { choice: self.choice, id, scored })
    }

    fn tell(&self, made: Made) -> Result<(), End> {
        if self.out.capacity() <= RESERVED {
            return Err(End::Failed(too_slow()));
        }
        drop(self.out.try_send(made));
        Ok(())
    }
}

fn too_slow() -> Error {
    Error::new(Code::ResourceExhausted, "the answer was read too slowly and has been broken off").with_reason("slow_reader")
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{CompleteRequest, SamplingParams, Tokens, complete_request::Prompt};

    use super::*;
    use crate::decode::{Defaults, Encode, Parts, Writing, channel};

    /// Of a model with 8 tokens; the last one ends an answer.
    fn lexicon() -> Lexicon {
        let encode: Encode = Box::new(|_: &str, _: bool| Ok::<Vec<u32>, String>(Vec::new()));
        let (writing, ends, defaults) = (Writing::None(8), vec![7], Defaults::default());
        Lexicon::new("m", Parts { encode, template: None, writing, ends, defaults, context_length: 64 })
    }

    #[tokio::test]
    async fn where_nothing_may_be_said_the_end_comes_with_the_prompts_last_token() {
        for (ids, logprobs, said) in
            [(vec![3, 5, 4], true, vec![Some(5), None]), (vec![3], true, vec![None]), (vec![3, 5], false, vec![None])]
        {
            let (lexicon, scored) = (lexicon(), if logprobs { ids.len() } else { 0 });
            let (prompt, sampling) = (Some(Prompt::Tokens(Tokens { ids })), Some(SamplingParams::greedy(0)));
            let request = CompleteRequest { prompt, sampling, echo: true, logprobs, ..CompleteRequest::text("m", "") };
            let (making, mut generation) = channel(lexicon.complete(&request, None).unwrap().0, None);
            let mut chooser = making.chooser(0, &lexicon);
            assert_eq!(said.iter().map(|_| chooser.next(&mut [0.0; 8])).collect::<Vec<_>>(), said);
            for _ in 0..scored {
                assert!(matches!(generation.next().await.unwrap(), Made::Prompt { .. }));
            }
            assert!(matches!(generation.next().await.unwrap(), Made::End { end: End::Length, .. }));
        }
    }

    #[tokio::test]
    async fn a_prompt_that_is_scored_is_said_before_the_answer_and_the_end_is_scored_too() {
        let (lexicon, prompt) = (lexicon(), Some(Prompt::Tokens(Tokens { ids: vec![3, 5, 4] })));
        let sampling = Some(SamplingParams::greedy(4));
        let request = CompleteRequest { prompt, sampling, echo: true, logprobs: true, ..CompleteRequest::text("m", "") };
        let (making, mut generation) = channel(lexicon.complete(&request, None).unwrap().0, None);
        let mut chooser = making.chooser(0, &lexicon);
        assert_eq!(chooser.ahead(), [5, 4]);
        let likes = |token: usize| {
            let mut logits = vec![0.0f32; 8];
            logits[token] = 2.0;
            logits
        };
        let said = [2, 2, 2, 7].map(|token| chooser.next(&mut likes(token)));
        assert_eq!((said, chooser.ahead().len()), ([Some(5), Some(4), Some(2), None], 0));
        let (mut prompt, mut answer) = (Vec::new(), Vec::new());
        loop {
            match generation.next().await.unwrap() {
                Made::Begun { .. } => {}
                Made::Prompt { id, scored, .. } => prompt.push((id, scored.logprob)),
                Made::Token { id, scored, .. } => answer.push((id, scored.unwrap().logprob)),
                Made::Last { id, scored, .. } => answer.push((id, scored.logprob)),
                Made::End { end, .. } => {
                    assert!(matches!(end, End::Stop), "{end:?}");
                    break;
                }
            }
        }
        let all = (7.0f32 + 2.0f32.exp()).ln();
        let near = |told: &[(u32, f32)], wanted: &[(u32, f32)]| {
            assert_eq!(told.len(), wanted.len(), "{told:?}");
            for ((id, logprob), (wanted_id, wanted)) in told.iter().zip(wanted) {
                assert!(id == wanted_id && (logprob == wanted || (logprob - wanted).abs() < 1e-5), "{told:?}");
            }
        };
        near(&prompt, &[(3, f32::NEG_INFINITY), (5, -all), (4, -all)]);
        near(&answer, &[(2, 2.0 - all), (7, 2.0 - all)]);
    }
}
