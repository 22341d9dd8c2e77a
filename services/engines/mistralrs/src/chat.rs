//! Tokens as the events of a chat.

use async_stream::try_stream;

use llama_stack_core::EventStream;
use llama_stack_models::assemble::Assembler;
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, Usage};

use crate::{
    chooser::{End, Made},
    generation::Generation,
    text::{Utf8, Vocabulary},
};

pub(crate) fn events(mut generation: Generation, request: ChatRequest, vocabulary: Vocabulary) -> EventStream<ChatEvent> {
    // Forms of tool calls begin with control tokens; elsewhere these are no part of an answer.
    let control = !request.tools.is_empty();
    Box::pin(try_stream! {
        let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
        for choice in 0..generation.choices {
            let mut answer = Assembler::new(&request, choice);
            let mut utf8 = Utf8::default();
            loop {
                let (events, over) = match generation.next().await? {
                    Made::Token { choice: of, id, scored } if of == choice => {
                        usage.completion_tokens += 1;
                        let text = utf8.push(vocabulary.bytes(id, control));
                        let logprobs = scored.iter().map(|scored| vocabulary.logprob(id, scored)).collect();
                        let (mut events, stopped) = answer.push(&text, logprobs);
                        if stopped {
                            generation.end(choice);
                            events.extend(answer.finish(FinishReason::Stop));
                        }
                        (events, stopped)
                    }
                    Made::End { choice: of, end } if of == choice => (finish(&mut answer, &mut utf8, &end), true),
                    // Made before the end of an earlier choice was heard.
                    _ => (Vec::new(), false),
                };
                for event in events {
                    yield event;
                }
                if over {
                    break;
                }
            }
        }
        yield ChatEvent::usage(usage);
    })
}

fn finish(answer: &mut Assembler, utf8: &mut Utf8, end: &End) -> Vec<ChatEvent> {
    let rest = utf8.finish();
    let (mut events, stopped) = if rest.is_empty() { (Vec::new(), false) } else { answer.push(&rest, Vec::new()) };
    let reason = if stopped { FinishReason::Stop } else { reason(end) };
    events.extend(answer.finish(reason));
    events
}

pub(crate) fn reason(end: &End) -> FinishReason {
    match end {
        End::Length => FinishReason::Length,
        End::Stop | End::Failed(_) => FinishReason::Stop,
    }
}
