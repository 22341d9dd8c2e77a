//! Tokens as the events of a completion: no template, no tools.

use async_stream::try_stream;

use llama_stack_core::EventStream;
use llama_stack_proto::v1::{CompleteEvent, CompleteRequest, FinishReason, TokenLogprob, Usage};

use crate::stop::StopStrings;

use super::{
    chat::reason,
    generation::{End, Generation, Made},
    text::{Utf8, Vocabulary},
};

/// `prompt` begins each answer, where the request wants its echo; with the scores of its tokens, where it wants those.
pub fn events(
    mut generation: Generation,
    request: CompleteRequest,
    prompt: Option<String>,
    vocabulary: Vocabulary,
) -> EventStream<CompleteEvent> {
    let scores_prompt = request.logprobs && request.echo;
    let stop = request.sampling.map(|sampling| sampling.stop).unwrap_or_default();
    let answer = |choice| Answer { choice, utf8: Utf8::default(), stop: StopStrings::new(&stop), logprobs: Vec::new(), over: false };
    let mut answers: Vec<Answer> = (0..generation.choices).map(answer).collect();
    Box::pin(try_stream! {
        let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
        if let Some(prompt) = prompt.as_ref().filter(|prompt| !prompt.is_empty() && !scores_prompt) {
            for choice in 0..generation.choices {
                yield CompleteEvent::text(choice, prompt.clone());
            }
        }
        while answers.iter().any(|answer| !answer.over) {
            let events = match generation.next().await? {
                Made::Begun { choice: 0, cached } => {
                    usage.cached_tokens = cached;
                    [None, None]
                }
                Made::Begun { .. } => [None, None],
                Made::Prompt { choice, id, scored } => match open(&mut answers, choice) {
                    Some(answer) => {
                        answer.logprobs.push(vocabulary.logprob(id, &scored));
                        let whole = answer.logprobs.len() == generation.prompt_tokens as usize;
                        [whole.then(|| answer.echo(prompt.clone().unwrap_or_default())), None]
                    }
                    None => [None, None],
                },
                Made::Last { choice, id, scored } => {
                    if let Some(answer) = open(&mut answers, choice) {
                        usage.completion_tokens += 1;
                        answer.logprobs.push(vocabulary.logprob(id, &scored));
                    }
                    [None, None]
                }
                Made::Token { choice, id, scored } => match open(&mut answers, choice) {
                    Some(answer) => {
                        usage.completion_tokens += 1;
                        answer.logprobs.extend(scored.iter().map(|scored| vocabulary.logprob(id, scored)));
                        let text = answer.utf8.push(vocabulary.bytes(id, false));
                        let (event, stopped) = answer.push(&text);
                        if stopped {
                            generation.end(choice);
                        }
                        [event, stopped.then(|| answer.finish(FinishReason::Stop))]
                    }
                    // Made before its end was heard.
                    None => [None, None],
                },
                Made::End { choice, end } => open(&mut answers, choice).map_or([None, None], |answer| answer.end(&end)),
            };
            for event in events.into_iter().flatten() {
                yield event;
            }
        }
        yield CompleteEvent::usage(usage);
    })
}

fn open(answers: &mut [Answer], choice: u32) -> Option<&mut Answer> {
    answers.get_mut(choice as usize).filter(|answer| !answer.over)
}

/// One choice on its way out.
struct Answer {
    choice: u32,
    utf8: Utf8,
    stop: StopStrings,
    /// Of tokens whose text is held back: it may be a part of a character, or of a stop string.
    logprobs: Vec<TokenLogprob>,
    over: bool,
}

impl Answer {
    fn push(&mut self, text: &str) -> (Option<CompleteEvent>, bool) {
        let stopped = self.stop.push(text);
        (self.event(stopped.text), stopped.stopped)
    }

    /// What was held back until the end, in which a stop string may stand after all; and the finish.
    fn end(&mut self, end: &End) -> [Option<CompleteEvent>; 2] {
        let last = self.utf8.finish();
        let mut stopped = self.stop.push(&last);
        if !stopped.stopped {
            stopped.text.push_str(&self.stop.finish());
        }
        let event = self.event(stopped.text);
        [event, Some(self.finish(if stopped.stopped { FinishReason::Stop } else { reason(end) }))]
    }

    fn finish(&mut self, reason: FinishReason) -> CompleteEvent {
        self.over = true;
        CompleteEvent { logprobs: std::mem::take(&mut self.logprobs), ..CompleteEvent::finish(self.choice, reason) }
    }

    /// The prompt, with the scores of its tokens.
    fn echo(&mut self, prompt: String) -> CompleteEvent {
        CompleteEvent { logprobs: std::mem::take(&mut self.logprobs), ..CompleteEvent::text(self.choice, prompt) }
    }

    fn event(&mut self, text: String) -> Option<CompleteEvent> {
        let logprobs = if text.is_empty() { return None } else { std::mem::take(&mut self.logprobs) };
        Some(CompleteEvent { logprobs, ..CompleteEvent::text(self.choice, text) })
    }
}
