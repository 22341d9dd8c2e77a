//! Chunks → events: where the servers' habits end and our contract begins.

use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::{ChatEvent, FinishReason, TokenLogprob, ToolCallDelta, Usage, chat_event::Event};

use super::{
    failure::Name,
    wire::{CallDelta, Choice, Chunk, FunctionDelta},
};

/// Of one answer. Each delta looks for its call among them, so without a bound a broken upstream costs time without bound.
const MOST_CALLS: usize = 1_024;

/// The answers of one request as they grow.
pub(super) struct Answers {
    open: Vec<Answer>,
    usage: Usage,
}

#[derive(Default)]
struct Answer {
    calls: Vec<Call>,
    /// Calls that have been told of; the next gets this index.
    begun: u32,
    /// Of tokens that made no event of their own, for example the first bytes of a character.
    logprobs: Vec<TokenLogprob>,
    seen: bool,
    finished: bool,
}

/// A call as it grows. Our index is the order of beginning; the upstream's may have gaps, repeat, or be missing.
#[derive(Default)]
struct Call {
    index: Option<u32>,
    id: String,
    name: String,
    /// Arguments that came before the name.
    early: String,
    begun: Option<u32>,
}

impl Answers {
    /// For a request of `n` answers.
    pub(super) fn new(n: u32) -> Self {
        Self { open: (0..n.max(1)).map(|_| Answer::default()).collect(), usage: Usage::default() }
    }

    /// # Errors
    /// `Unavailable` for an answer that nobody asked for, or one that the upstream says has failed.
    pub(super) fn take(&mut self, name: &Name, chunk: Chunk, out: &mut Vec<ChatEvent>) -> Result<()> {
        if let Some(usage) = chunk.usage {
            self.usage = usage.into();
        }
        for choice in chunk.choices.into_iter().flatten() {
            let index = choice.index.unwrap_or_default();
            match self.open.get_mut(index as usize) {
                Some(answer) if answer.finished => {}
                Some(answer) => answer.take(name, index, choice, out)?,
                None => return Err(name.malformed(format_args!("answer {index}, where {} were asked for", self.open.len()))),
            }
        }
        Ok(())
    }

    /// At the end of the stream. `said` is whether the upstream said that this is the end; some leave out a finish reason.
    ///
    /// # Errors
    /// `Unavailable`, `stream_broken`, where an answer is not done.
    pub(super) fn end(&mut self, name: &Name, said: bool, out: &mut Vec<ChatEvent>) -> Result<()> {
        for (index, answer) in self.open.iter_mut().enumerate() {
            if !answer.finished {
                if !said || !answer.seen {
                    return Err(name.broken());
                }
                answer.finish(index as u32, FinishReason::Stop, out);
            }
        }
        out.push(ChatEvent::usage(self.usage));
        Ok(())
    }

    /// All answers have ended; only the usage may follow.
    pub(super) fn all_finished(&self) -> bool {
        self.open.iter().all(|answer| answer.finished)
    }
}

impl Answer {
    fn take(&mut self, name: &Name, index: u32, choice: Choice, out: &mut Vec<ChatEvent>) -> Result<()> {
        self.seen = true;
        if let Some(logprobs) = choice.logprobs {
            self.logprobs.extend(logprobs.into_tokens());
        }
        if let Some(delta) = choice.delta {
            // Some send both names with the same words.
            for thinking in [delta.reasoning_content.or(delta.reasoning).unwrap_or_default(), delta.content.thinking] {
                self.say(index, thinking, Event::Reasoning, out);
            }
            self.say(index, delta.content.text, Event::Text, out);
            self.say(index, delta.refusal.unwrap_or_default(), Event::Refusal, out);
            for call in delta.tool_calls.into_iter().flatten() {
                self.call(index, call, out);
                if self.calls.len() > MOST_CALLS {
                    return Err(name.malformed(format_args!("more than {MOST_CALLS} tool calls in one answer")));
                }
            }
            if let Some(function) = delta.function_call {
                self.call(index, CallDelta { index: Some(0), id: None, function: Some(function) }, out);
            }
        }
        self.say(index, choice.text.unwrap_or_default(), Event::Text, out);
        match choice.finish_reason.as_deref() {
            None | Some("") => Ok(()),
            Some("error" | "insufficient_system_resource") => {
                Err(llama_stack_core::Error::unavailable(format!("provider {:?}: the upstream gave up its answer", name.id))
                    .with_reason("upstream_error"))
            }
            Some(reason) => {
                if self.calls.iter().any(|call| call.begun.is_none() && !call.early.is_empty()) {
                    return Err(name.malformed("a tool call without a name"));
                }
                self.finish(index, finish_reason(reason), out);
                Ok(())
            }
        }
    }

    fn say(&mut self, index: u32, text: String, event: impl FnOnce(String) -> Event, out: &mut Vec<ChatEvent>) {
        if !text.is_empty() {
            self.emit(index, event(text), out);
        }
    }

    fn emit(&mut self, index: u32, event: Event, out: &mut Vec<ChatEvent>) {
        out.push(ChatEvent { choice: index, event: Some(event), logprobs: std::mem::take(&mut self.logprobs) });
    }

    fn finish(&mut self, index: u32, reason: FinishReason, out: &mut Vec<ChatEvent>) {
        // Some say `stop` after a call.
        let reason = if reason == FinishReason::Stop && self.begun > 0 { FinishReason::ToolCalls } else { reason };
        self.finished = true;
        self.emit(index, Event::Finish(reason.into()), out);
    }

    fn call(&mut self, choice: u32, delta: CallDelta, out: &mut Vec<ChatEvent>) {
        let at = self.place(&delta);
        let call = &mut self.calls[at];
        let FunctionDelta { name, arguments } = delta.function.unwrap_or_default();
        if let Some(id) = delta.id.filter(|_| call.id.is_empty()) {
            call.id = id;
        }
        if let Some(begun) = call.begun {
            if !arguments.is_empty() {
                let delta = ToolCallDelta { index: begun, arguments, ..ToolCallDelta::default() };
                self.emit(choice, Event::ToolCall(delta), out);
            }
            return;
        }
        call.name.push_str(name.as_deref().unwrap_or_default());
        call.early.push_str(&arguments);
        if call.name.is_empty() {
            return;
        }
        if call.id.is_empty() {
            call.id = ids::new("call");
        }
        call.begun = Some(self.begun);
        let delta =
            ToolCallDelta { index: self.begun, id: call.id.clone(), name: call.name.clone(), arguments: std::mem::take(&mut call.early) };
        self.begun += 1;
        self.emit(choice, Event::ToolCall(delta), out);
    }

    /// The call that a delta belongs to.
    ///
    /// An index says it, unless an id says otherwise: there are servers that number all calls 0. Without an index it is the
    /// call of that id; without that too, a name begins a new call and anything else goes on with the last.
    fn place(&mut self, delta: &CallDelta) -> usize {
        let id = delta.id.as_deref().filter(|id| !id.is_empty());
        let named = delta.function.as_ref().is_some_and(|function| function.name.as_deref().is_some_and(|name| !name.is_empty()));
        let same_id = |call: &Call| id.is_none_or(|id| call.id.is_empty() || call.id == id);
        let found = match (delta.index, id) {
            (Some(index), _) => self.calls.iter().rposition(|call| call.index == Some(index) && (same_id(call) || !named)),
            (None, Some(id)) => self.calls.iter().rposition(|call| call.id == id),
            (None, None) if named => None,
            (None, None) => self.calls.len().checked_sub(1),
        };
        found.unwrap_or_else(|| {
            self.calls.push(Call { index: delta.index, ..Call::default() });
            self.calls.len() - 1
        })
    }
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        // `stop`, and `eos`, `eos_token`, `stop_sequence`, …
        _ => FinishReason::Stop,
    }
}

#[cfg(test)]
mod tests;
