//! The answers to one request on their way from an engine's thread to whoever reads them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use tokio::sync::mpsc;

use llama_stack_core::{Code, Error, Result};

use super::{chooser::Chooser, lexicon::Lexicon, logprobs::Scored, plan::Plan};

/// Tokens that an answer may be ahead of its reader.
const AHEAD: usize = 1_024;

/// Places of the channel that tokens leave to the rest: the beginning and the end of each choice, and a failure.
pub(super) const RESERVED: usize = 40;

/// What a generation brings forth. Choices may come one after the other or side by side; each ends once.
#[derive(Debug)]
pub enum Made {
    /// The prompt's first so many tokens did not have to be read again.
    Begun {
        choice: u32,
        cached: u32,
    },
    /// A token of the prompt, where they are scored: all of them come, in order, before the answer.
    Prompt {
        choice: u32,
        id: u32,
        scored: Scored,
    },
    Token {
        choice: u32,
        id: u32,
        scored: Option<Scored>,
    },
    /// The token that ends the answer, where a prompt is scored: it has no text.
    Last {
        choice: u32,
        id: u32,
        scored: Scored,
    },
    End {
        choice: u32,
        end: End,
    },
}

#[derive(Debug)]
pub enum End {
    /// The model ended, or its constraint was met for good.
    Stop,
    /// `max_tokens`.
    Length,
    Failed(Error),
}

/// Which choices are over because nobody wants more of them. One bit each; there are 16 at most.
#[derive(Debug, Default)]
pub struct Control(AtomicU32);

/// The reading end. Dropping it ends the generation with the step that is under way.
pub struct Generation {
    made: mpsc::Receiver<Made>,
    control: Arc<Control>,
    deadline: Option<Instant>,
    pub prompt_tokens: u32,
    pub choices: u32,
}

/// The making end.
pub struct Making {
    pub plan: Plan,
    out: mpsc::Sender<Made>,
    control: Arc<Control>,
}

/// Both ends of what `plan` asks for.
pub fn channel(plan: Plan, deadline: Option<Instant>) -> (Making, Generation) {
    // A prompt that is scored comes in chunks, faster than an answer is read.
    let scored = if plan.score_prompt { plan.prompt.len() * plan.choices as usize } else { 0 };
    let (out, made) = mpsc::channel(AHEAD + RESERVED + scored);
    let control = Arc::new(Control::default());
    let prompt_tokens = u32::try_from(plan.prompt.len()).unwrap_or(u32::MAX);
    let generation = Generation { made, control: control.clone(), deadline, prompt_tokens, choices: plan.choices };
    (Making { plan, out, control }, generation)
}

impl Control {
    pub fn end(&self, choice: u32) {
        self.0.fetch_or(1u32.checked_shl(choice).unwrap_or(0), Ordering::Relaxed);
    }

    pub fn cancel(&self) {
        self.0.store(u32::MAX, Ordering::Relaxed);
    }

    pub fn is_over(&self, choice: u32) -> bool {
        self.0.load(Ordering::Relaxed) & 1u32.checked_shl(choice).unwrap_or(0) != 0
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == u32::MAX
    }
}

impl Making {
    /// What chooses the tokens of one answer.
    pub fn chooser(&self, choice: u32, lexicon: &Lexicon) -> Chooser {
        Chooser::new(choice, &self.plan, lexicon, self.out.clone(), self.control.clone())
    }

    pub fn is_cancelled(&self) -> bool {
        self.control.is_cancelled()
    }

    /// Tells the reader that there will be no answer, or no more of it.
    pub fn fail(&self, error: Error) {
        // Without room the reader is far behind, and finds the channel closed after the last token.
        drop(self.out.try_send(Made::End { choice: 0, end: End::Failed(error) }));
    }
}

impl Generation {
    /// What comes next.
    ///
    /// # Errors
    /// `DeadlineExceeded` · `Unavailable` (`engine_failed`) where the engine broke · `Internal` where this sequence did ·
    /// `ResourceExhausted` (`slow_reader`).
    pub async fn next(&mut self) -> Result<Made> {
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

    /// No more of this choice is wanted.
    pub fn end(&self, choice: u32) {
        self.control.end(choice);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.control.cancel();
    }
}

/// The engine has died; it is loaded anew.
pub fn broken() -> Error {
    Error::unavailable("the engine broke and is being started again: try once more")
        .with_reason("engine_failed")
        .with_retry_after(std::time::Duration::from_secs(2))
}
