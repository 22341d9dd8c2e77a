//! Tokens as the events of a chat.

use async_stream::try_stream;

use llama_stack_core::EventStream;
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, Usage};

use crate::assemble::Assembler;

use super::{
    generation::{End, Generation, Made},
    text::{Utf8, Vocabulary},
};

/// One choice on its way out.
struct Answer {
    assembler: Assembler,
    utf8: Utf8,
    over: bool,
}

pub fn events(mut generation: Generation, request: ChatRequest, vocabulary: Vocabulary) -> EventStream<ChatEvent> {
    // Forms of tool calls begin with control tokens; elsewhere these are no part of an answer.
    let control = !request.tools.is_empty();
    let answer = |choice| Answer { assembler: Assembler::new(&request, choice), utf8: Utf8::default(), over: false };
    let mut answers: Vec<Answer> = (0..generation.choices).map(answer).collect();
    Box::pin(try_stream! {
        let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
        while answers.iter().any(|answer| !answer.over) {
            let events = match generation.next().await? {
                Made::Begun { choice: 0, cached } => {
                    usage.cached_tokens = cached;
                    Vec::new()
                }
                Made::Begun { .. } | Made::Prompt { .. } | Made::Last { .. } => Vec::new(),
                Made::Token { choice, id, scored } => match open(&mut answers, choice) {
                    Some(answer) => {
                        usage.completion_tokens += 1;
                        let text = answer.utf8.push(vocabulary.bytes(id, control));
                        let logprobs = scored.iter().map(|scored| vocabulary.logprob(id, scored)).collect();
                        let (mut events, stopped) = answer.assembler.push(&text, logprobs);
                        if stopped {
                            generation.end(choice);
                            answer.over = true;
                            events.extend(answer.assembler.finish(FinishReason::Stop));
                        }
                        events
                    }
                    // Made before its end was heard.
                    None => Vec::new(),
                },
                Made::End { choice, end } => open(&mut answers, choice).map_or_else(Vec::new, |answer| answer.finish(&end)),
            };
            for event in events {
                yield event;
            }
        }
        yield ChatEvent::usage(usage);
    })
}

fn open(answers: &mut [Answer], choice: u32) -> Option<&mut Answer> {
    answers.get_mut(choice as usize).filter(|answer| !answer.over)
}

impl Answer {
    fn finish(&mut self, end: &End) -> Vec<ChatEvent> {
        self.over = true;
        let rest = self.utf8.finish();
        let (mut events, stopped) = if rest.is_empty() { (Vec::new(), false) } else { self.assembler.push(&rest, Vec::new()) };
        let reason = if stopped { FinishReason::Stop } else { reason(end) };
        events.extend(self.assembler.finish(reason));
        events
    }
}

pub(super) fn reason(end: &End) -> FinishReason {
    match end {
        End::Length => FinishReason::Length,
        End::Stop | End::Failed(_) => FinishReason::Stop,
    }
}
