//! Generated text becomes the events of one choice: stop strings, then tool calls, and the log-probabilities with them.

use std::collections::VecDeque;

use llama_stack_core::ids;
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, TokenLogprob, ToolCallDelta};

use crate::{
    stop::StopStrings,
    tool_calls::{self, Located, Piece, ToolCallParser},
};

/// Makes the events of one choice. Usage is not among them: it belongs to all choices.
#[derive(Clone, Debug)]
pub struct Assembler {
    choice: u32,
    stop: StopStrings,
    calls: ToolCallParser,
    /// False: one call at most, and nothing after it.
    parallel: bool,
    called: u32,
    /// A stop string or the one allowed call was met: what comes now is not part of the answer.
    stopped: bool,
    /// Bytes of text that were generated, and that passed the stop strings.
    generated: usize,
    passed: usize,
    /// With the place in the text where their tokens begin, in order.
    logprobs: VecDeque<(usize, TokenLogprob)>,
}

impl Assembler {
    pub fn new(request: &ChatRequest, choice: u32) -> Self {
        let stops = request.sampling.as_ref().map_or(&[][..], |sampling| &sampling.stop);
        Self {
            choice,
            stop: StopStrings::new(stops),
            calls: ToolCallParser::new(tool_calls::offered(request)),
            parallel: request.parallel_tool_calls.unwrap_or(true),
            called: 0,
            stopped: false,
            generated: 0,
            passed: 0,
            logprobs: VecDeque::new(),
        }
    }

    /// Takes the next text and the log-probabilities of its tokens (none where they were not asked for; a token that
    /// is part of a character comes with empty text). True: generation can end, nothing more will come of it.
    ///
    /// A log-probability goes with the event that carries its token's first byte. Those of tokens that a stop string
    /// cut away whole are left out, as the text is.
    pub fn push(&mut self, text: &str, logprobs: Vec<TokenLogprob>) -> (Vec<ChatEvent>, bool) {
        if self.stopped {
            return (Vec::new(), true);
        }
        self.remember(text.len(), logprobs);
        self.generated += text.len();
        let out = self.stop.push(text);
        self.passed += out.text.len();
        let mut pieces = self.calls.push_located(&out.text);
        if out.stopped {
            pieces.extend(self.calls.finish_located());
            self.stopped = true;
        }
        let events = self.events(pieces);
        (events, self.stopped)
    }

    /// What was held back, and the end. `Stop` becomes `ToolCalls` where there was a call, and so does `Length`,
    /// unless the limit may have cut that call off.
    pub fn finish(&mut self, reason: FinishReason) -> Vec<ChatEvent> {
        let whole_calls = self.called;
        let mut events = Vec::new();
        if !self.stopped {
            let rest = self.stop.finish();
            self.passed += rest.len();
            let mut pieces = self.calls.push_located(&rest);
            pieces.extend(self.calls.finish_located());
            events = self.events(pieces);
        }
        let reason = match reason {
            FinishReason::Stop if self.called > 0 => FinishReason::ToolCalls,
            FinishReason::Length if whole_calls > 0 && self.called == whole_calls => FinishReason::ToolCalls,
            reason => reason,
        };
        let mut end = ChatEvent::finish(self.choice, reason);
        // White space after a call, for example, has no event of its own.
        let passed = if self.stopped { self.passed } else { usize::MAX };
        end.logprobs = self.logprobs_before(passed);
        self.logprobs.clear();
        events.push(end);
        events
    }

    fn events(&mut self, pieces: Vec<Located>) -> Vec<ChatEvent> {
        let mut events = Vec::new();
        for Located { piece, end } in pieces {
            if !self.parallel && self.called > 0 {
                break;
            }
            let mut event = match piece {
                Piece::Text(text) => ChatEvent::text(self.choice, text),
                Piece::Call { name, arguments } => {
                    let index = self.called;
                    self.called += 1;
                    ChatEvent::tool_call(self.choice, ToolCallDelta { index, id: ids::new("call"), name, arguments })
                }
            };
            event.logprobs = self.logprobs_before(end);
            events.push(event);
            if !self.parallel && self.called > 0 {
                self.stopped = true;
                self.passed = end;
            }
        }
        events
    }

    /// Where each token begins: by its bytes where they add up to the text, else all where the text begins.
    fn remember(&mut self, length: usize, logprobs: Vec<TokenLogprob>) {
        let by_bytes = logprobs.iter().map(|logprob| logprob.bytes.len()).sum::<usize>() == length;
        let mut at = self.generated;
        for logprob in logprobs {
            let bytes = logprob.bytes.len();
            self.logprobs.push_back((at, logprob));
            at += if by_bytes { bytes } else { 0 };
        }
    }

    fn logprobs_before(&mut self, end: usize) -> Vec<TokenLogprob> {
        let count = self.logprobs.iter().take_while(|(at, _)| *at < end).count();
        self.logprobs.drain(..count).map(|(_, logprob)| logprob).collect()
    }
}

#[cfg(test)]
mod tests;
