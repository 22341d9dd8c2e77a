//! The answers to one request: made one after the other, told as they are made, ended as soon as nobody listens.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use llama_stack_core::{Code, Error, Result};

use crate::{
    chooser::{Chooser, Control, End, Made, RESERVED, State},
    engine::{Engine, Failure},
    grammar::Grammar,
    sampler::{Sampler, Sampling},
};

/// Tokens that an answer may be ahead of its reader.
const AHEAD: usize = 1_024;

/// Everything that a request asks of the engine.
pub(crate) struct Plan {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) grammar: Option<Grammar>,
    pub(crate) max_tokens: u32,
    /// 1 to 16.
    pub(crate) choices: u32,
    /// Score tokens, with so many alternatives.
    pub(crate) score: Option<usize>,
}

/// The reading end. Dropping it ends the generation with the step that is under way: a token, or the reading of the
/// prompt, which mistral.rs does in one step.
pub(crate) struct Generation {
    made: mpsc::Receiver<Made>,
    control: Arc<Control>,
    deadline: Option<Instant>,
    pub(crate) prompt_tokens: u32,
    pub(crate) choices: u32,
}

/// The making end: [`Making::run`] returns when the engine is free.
pub(crate) struct Making {
    plan: Plan,
    out: mpsc::Sender<Made>,
    control: Arc<Control>,
}

/// How the engine came out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Sound,
    /// Its thread has ended.
    Broken,
}

pub(crate) fn new(plan: Plan, deadline: Option<Instant>) -> (Making, Generation) {
    let (out, made) = mpsc::channel(AHEAD + RESERVED);
    let control = Arc::new(Control::default());
    let prompt_tokens = u32::try_from(plan.prompt.len()).unwrap_or(u32::MAX);
    let generation = Generation { made, control: control.clone(), deadline, prompt_tokens, choices: plan.choices };
    (Making { plan, out, control }, generation)
}

impl Generation {
    /// The next token or end.
    ///
    /// # Errors
    /// `DeadlineExceeded` · `Unavailable` (`engine_failed`) where the engine broke · `Internal` where this sequence did ·
    /// `ResourceExhausted` (`slow_reader`).
    pub(crate) async fn next(&mut self) -> Result<Made> {
        let made = match self.deadline {
            None => self.made.recv().await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), self.made.recv()).await {
                Ok(made) => made,
                Err(_) => return Err(Error::new(Code::DeadlineExceeded, "the deadline passed before the answer was done")),
            },
        };
        match made {
            Some(Made::End { end: End::Failed(error), .. }) => Err(error),
            Some(made) => Ok(made),
            None => Err(broken()),
        }
    }

    /// No more of this choice is wanted; the next one begins.
    pub(crate) fn end(&self, choice: u32) {
        self.control.end(choice);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.control.cancel();
    }
}

impl Making {
    /// Makes all choices, each from the prompt anew.
    pub(crate) async fn run(self, engine: &Engine) -> After {
        let Making { plan, out, control } = self;
        for choice in 0..plan.choices {
            if control.is_cancelled() {
                break;
            }
            let chooser = Arc::new(Chooser {
                choice,
                control: control.clone(),
                ends: engine.ends.clone(),
                vocabulary: engine.vocabulary.size(),
                score: plan.score,
                state: Mutex::new(State {
                    sampler: Sampler::new(plan.sampling.clone().for_choice(choice), &plan.prompt),
                    grammar: plan.grammar.clone(),
                    left: plan.max_tokens,
                    out: out.clone(),
                    ended: false,
                }),
            });
            let result = engine.run(plan.prompt.clone(), plan.max_tokens, chooser.clone()).await;
            let (error, after) = match result {
                Ok(()) if chooser.has_ended() => continue,
                Err(Failure::Sequence(cause)) => {
                    tracing::error!(cause, "a sequence failed");
                    (
                        Error::internal("the engine could not compute the answer").with_reason("engine_error").with_source(cause),
                        After::Sound,
                    )
                }
                Ok(()) | Err(Failure::Engine) => (broken(), After::Broken),
            };
            drop(out.try_send(Made::End { choice, end: End::Failed(error) }));
            return after;
        }
        After::Sound
    }
}

fn broken() -> Error {
    Error::unavailable("the engine broke and is being started again: try once more")
        .with_reason("engine_failed")
        .with_retry_after(Duration::from_secs(2))
}
