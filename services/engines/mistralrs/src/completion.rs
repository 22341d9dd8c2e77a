//! Tokens as the events of a completion: no template, no tools.

use async_stream::try_stream;

use llama_stack_core::EventStream;
use llama_stack_models::stop::StopStrings;
use llama_stack_proto::v1::{CompleteEvent, CompleteRequest, FinishReason, TokenLogprob, Usage};

use crate::{
    chat::reason,
    chooser::Made,
    generation::Generation,
    text::{Utf8, Vocabulary},
};

/// `prompt` begins each answer, where the request wants its echo.
pub(crate) fn events(
    mut generation: Generation,
    request: CompleteRequest,
    prompt: Option<String>,
    vocabulary: Vocabulary,
) -> EventStream<CompleteEvent> {
    let stop = request.sampling.map(|sampling| sampling.stop).unwrap_or_default();
    Box::pin(try_stream! {
        let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
        for choice in 0..generation.choices {
            let mut answer = Answer { choice, utf8: Utf8::default(), stop: StopStrings::new(&stop), logprobs: Vec::new() };
            if let Some(prompt) = prompt.as_ref().filter(|prompt| !prompt.is_empty()) {
                yield CompleteEvent::text(choice, prompt.clone());
            }
            let finish = loop {
                match generation.next().await? {
                    Made::Token { choice: of, id, scored } if of == choice => {
                        usage.completion_tokens += 1;
                        answer.logprobs.extend(scored.iter().map(|scored| vocabulary.logprob(id, scored)));
                        let text = answer.utf8.push(vocabulary.bytes(id, false));
                        let (event, stopped) = answer.push(&text);
                        if let Some(event) = event {
                            yield event;
                        }
                        if stopped {
                            generation.end(choice);
                            break FinishReason::Stop;
                        }
                    }
                    Made::End { choice: of, end } if of == choice => {
                        let (event, stopped) = answer.rest();
                        if let Some(event) = event {
                            yield event;
                        }
                        break if stopped { FinishReason::Stop } else { reason(&end) };
                    }
                    // Made before the end of an earlier choice was heard.
                    _ => {}
                }
            };
            yield CompleteEvent { logprobs: answer.logprobs, ..CompleteEvent::finish(choice, finish) };
        }
        yield CompleteEvent::usage(usage);
    })
}

/// One choice on its way out.
struct Answer {
    choice: u32,
    utf8: Utf8,
    stop: StopStrings,
    /// Of tokens whose text is held back: it may be a part of a character, or of a stop string.
    logprobs: Vec<TokenLogprob>,
}

impl Answer {
    fn push(&mut self, text: &str) -> (Option<CompleteEvent>, bool) {
        let stopped = self.stop.push(text);
        (self.event(stopped.text), stopped.stopped)
    }

    /// What was held back until the end, and whether a stop string was in it after all.
    fn rest(&mut self) -> (Option<CompleteEvent>, bool) {
        let last = self.utf8.finish();
        let mut stopped = self.stop.push(&last);
        if !stopped.stopped {
            stopped.text.push_str(&self.stop.finish());
        }
        (self.event(stopped.text), stopped.stopped)
    }

    fn event(&mut self, text: String) -> Option<CompleteEvent> {
        let logprobs = if text.is_empty() { return None } else { std::mem::take(&mut self.logprobs) };
        Some(CompleteEvent { logprobs, ..CompleteEvent::text(self.choice, text) })
    }
}
