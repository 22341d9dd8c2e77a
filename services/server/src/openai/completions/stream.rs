//! An answer in pieces.

use axum::response::sse::Event;

use llama_stack_core::{Error, Result, fold};
use llama_stack_proto::v1::{self, CompleteEvent, FinishReason, complete_event};

use super::response::{Choice, Completion};
use crate::openai::{
    chat::finish,
    logprobs::CompletionLogprobs,
    sse::{self, Encode},
    usage::Usage,
};

/// Writes the pieces of one answer.
pub(super) struct Pieces {
    /// What all pieces share; its choices are replaced for each.
    frame: Completion,
    include_usage: bool,
    /// Over all prompts.
    usage: v1::Usage,
    choices: Vec<Progress>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// Characters so far.
    offset: usize,
    begun: bool,
    ended: bool,
}

impl Pieces {
    pub(super) fn new(model: String, include_usage: bool) -> Self {
        let mut frame = Completion::new(model);
        frame.usage = include_usage.then_some(None);
        Self { frame, include_usage, usage: v1::Usage::default(), choices: Vec::new() }
    }
}

impl Encode<CompleteEvent> for Pieces {
    fn push(&mut self, event: CompleteEvent, out: &mut Vec<Event>) -> Result<()> {
        use complete_event::Event as Happened;
        let index = event.choice as usize;
        let (text, finish_reason) = match event.event {
            Some(Happened::Usage(usage)) => {
                self.usage.add(&usage);
                return Ok(());
            }
            Some(Happened::Text(text)) => (text, None),
            Some(Happened::Finish(reason)) => (String::new(), finish(FinishReason::try_from(reason).unwrap_or_default())),
            None => return Ok(()),
        };
        if index >= 1_024 {
            return Err(Error::internal("the model sent an answer that nobody asked for"));
        }
        if self.choices.len() <= index {
            self.choices.resize(index + 1, Progress::default());
        }
        let progress = &mut self.choices[index];
        // A prompt that is echoed comes first, and may have no log-probabilities.
        if !progress.begun && event.logprobs.is_empty() {
            progress.offset = text.chars().count();
        }
        (progress.begun, progress.ended) = (true, finish_reason.is_some());
        let logprobs = CompletionLogprobs::new(event.logprobs, &text, &mut progress.offset);
        self.frame.choices = vec![Choice { index, text, logprobs, finish_reason }];
        out.push(sse::data(&self.frame));
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<()> {
        if self.choices.is_empty() || self.choices.iter().any(|choice| !choice.ended) {
            return Err(fold::broken_off());
        }
        if self.include_usage {
            self.frame.choices.clear();
            self.frame.usage = Some(Some(Usage::from(&self.usage)));
            out.push(sse::data(&self.frame));
        }
        Ok(())
    }
}
