//! Chooses each token of an answer, in the engine's own thread, from the raw logits of the step.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use candle_core::Tensor;
use mistralrs::CustomLogitsProcessor;
use tokio::sync::mpsc;

use llama_stack_core::Error;

use crate::{
    grammar::Grammar,
    logprobs::{self, Scored},
    sampler::Sampler,
};

/// What a generation brings forth, in order: the tokens of each choice, then its end.
pub(crate) enum Made {
    Token { choice: u32, id: u32, scored: Option<Scored> },
    End { choice: u32, end: End },
}

pub(crate) enum End {
    /// The model ended, or its constraint was met for good.
    Stop,
    /// `max_tokens`.
    Length,
    Failed(Error),
}

/// Places of the channel that tokens leave to ends: one for each choice, and for a failure.
pub(crate) const RESERVED: usize = 32;

/// Which choices are over because nobody wants more of them. One bit each; there are 16 at most.
#[derive(Default)]
pub(crate) struct Control(AtomicU32);

impl Control {
    pub(crate) fn end(&self, choice: u32) {
        self.0.fetch_or(1u32.checked_shl(choice).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn cancel(&self) {
        self.0.store(u32::MAX, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self, choice: u32) -> bool {
        self.0.load(Ordering::Relaxed) & 1u32.checked_shl(choice).unwrap_or(0) != 0
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == u32::MAX
    }
}

/// The engine asks it for every token of one choice, and gets logits that leave exactly one.
pub(crate) struct Chooser {
    pub(crate) choice: u32,
    pub(crate) control: Arc<Control>,
    pub(crate) ends: Arc<[u32]>,
    /// Logits beyond are padding of the weights.
    pub(crate) vocabulary: usize,
    /// Score tokens, with so many alternatives.
    pub(crate) score: Option<usize>,
    pub(crate) state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) sampler: Sampler,
    pub(crate) grammar: Option<Grammar>,
    /// Tokens that may still come.
    pub(crate) left: u32,
    pub(crate) out: mpsc::Sender<Made>,
    pub(crate) ended: bool,
}

impl CustomLogitsProcessor for Chooser {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> candle_core::Result<Tensor> {
        let mut logits = logits.to_vec1::<f32>()?;
        let next = self.next(&mut logits).or(self.ends.first().copied()).unwrap_or_default();
        logits.fill(f32::NEG_INFINITY);
        if let Some(chosen) = logits.get_mut(next as usize) {
            *chosen = 0.0;
        }
        let length = logits.len();
        Tensor::from_vec(logits, length, &candle_core::Device::Cpu)
    }
}

impl Chooser {
    /// Whether the answer came to its end; if the engine lets go before, it has failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// The next token, or none: the end. A last token is told and the engine is sent its end instead, for it need not
    /// compute what nobody will ask for.
    fn next(&self, logits: &mut [f32]) -> Option<u32> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return None;
        }
        if self.control.is_over(self.choice) {
            state.ended = true;
            return None;
        }
        match self.step(&mut state, logits) {
            Ok(token) => Some(token),
            Err(end) => {
                state.ended = true;
                // There is room: tokens leave the last places free.
                drop(state.out.try_send(Made::End { choice: self.choice, end }));
                None
            }
        }
    }

    fn step(&self, state: &mut State, logits: &mut [f32]) -> Result<u32, End> {
        let allowed = state.grammar.as_mut().map(Grammar::allowed).transpose().map_err(End::Failed)?;
        let raw = self.score.map(|_| logits.to_vec());
        logits.iter_mut().skip(self.vocabulary).for_each(|padding| *padding = f32::NEG_INFINITY);
        let Some(token) = state.sampler.choose(logits, allowed.as_ref()) else {
            return Err(End::Failed(Error::internal("the model has no token left to choose from").with_reason("no_token")));
        };
        if self.ends.contains(&token) {
            return Err(End::Stop);
        }
        if state.out.capacity() <= RESERVED {
            return Err(End::Failed(too_slow()));
        }
        let scored = raw.zip(self.score).map(|(raw, top)| logprobs::score(&raw, token, top));
        drop(state.out.try_send(Made::Token { choice: self.choice, id: token, scored }));
        state.left = state.left.saturating_sub(1);
        let met = state.grammar.as_mut().map_or(Ok(false), |grammar| grammar.push(token)).map_err(End::Failed)?;
        match (met, state.left) {
            (true, _) => Err(End::Stop),
            (false, 0) => Err(End::Length),
            (false, _) => Ok(token),
        }
    }
}

fn too_slow() -> Error {
    Error::new(llama_stack_core::Code::ResourceExhausted, "the answer was read too slowly and has been broken off")
        .with_reason("slow_reader")
}
