//! The chooser of one answer, as mistral.rs asks for it: it is handed logits that leave exactly one token.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use candle_core::Tensor;
use llama_stack_models::decode::Chooser;
use mistralrs::CustomLogitsProcessor;

pub(crate) struct Choosing {
    state: Mutex<State>,
    /// Ends the engine's sequence.
    end: u32,
}

struct State {
    chooser: Chooser,
    /// The rest of the prompt, read token by token as if it were the answer.
    unread: VecDeque<u32>,
}

impl Choosing {
    pub(crate) fn new(chooser: Chooser, unread: &[u32], end: u32) -> Self {
        Self { state: Mutex::new(State { chooser, unread: unread.iter().copied().collect() }), end }
    }

    /// Whether the answer came to its end; if the engine lets go before, it has failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().chooser.has_ended()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self, logits: &mut [f32]) -> Option<u32> {
        match self.unread.pop_front() {
            Some(token) if !self.chooser.is_over() => Some(token),
            _ => self.chooser.next(logits),
        }
    }
}

impl CustomLogitsProcessor for Choosing {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> candle_core::Result<Tensor> {
        let mut logits = logits.to_vec1::<f32>()?;
        let next = self.lock().next(&mut logits).unwrap_or(self.end);
        logits.fill(f32::NEG_INFINITY);
        if let Some(chosen) = logits.get_mut(next as usize) {
            *chosen = 0.0;
        }
        let length = logits.len();
        Tensor::from_vec(logits, length, &candle_core::Device::Cpu)
    }
}
