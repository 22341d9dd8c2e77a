//! What may follow what in a streamed answer, and how much of it.

use llama_stack_core::grpc::MAX_MESSAGE_BYTES;
use llama_stack_proto::v1::{ChatEvent, CompleteEvent, FinishReason, chat_event, complete_event};

/// More than any model asks for at once; each would be run.
const MAX_CALLS: u32 = 1_024;

/// An event, as far as its place matters.
pub(super) trait Said: Send + 'static {
    fn what(&self) -> What<'_>;

    fn has_logprobs(&self) -> bool;

    /// Which of the answers.
    fn answer(&self) -> u32;
}

#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Text(&'a str),
    Call {
        index: u32,
        name: &'a str,
        arguments: &'a str,
    },
    Finish(i32),
    Usage,
    /// A later contract may have other events.
    Unknown,
}

impl Said for ChatEvent {
    fn what(&self) -> What<'_> {
        use chat_event::Event;
        match &self.event {
            Some(Event::Text(text) | Event::Refusal(text) | Event::Reasoning(text)) => What::Text(text),
            Some(Event::ToolCall(delta)) => What::Call { index: delta.index, name: &delta.name, arguments: &delta.arguments },
            Some(Event::Finish(reason)) => What::Finish(*reason),
            Some(Event::Usage(_)) => What::Usage,
            None => What::Unknown,
        }
    }

    fn has_logprobs(&self) -> bool {
        !self.logprobs.is_empty()
    }

    fn answer(&self) -> u32 {
        self.choice
    }
}

impl Said for CompleteEvent {
    fn what(&self) -> What<'_> {
        use complete_event::Event;
        match &self.event {
            Some(Event::Text(text)) => What::Text(text),
            Some(Event::Finish(reason)) => What::Finish(*reason),
            Some(Event::Usage(_)) => What::Usage,
            None => What::Unknown,
        }
    }

    fn has_logprobs(&self) -> bool {
        !self.logprobs.is_empty()
    }

    fn answer(&self) -> u32 {
        self.choice
    }
}

/// One stream, from its beginning.
pub(super) struct Order {
    answers: Vec<Answer>,
    used: bool,
    bytes: usize,
}

#[derive(Clone, Default)]
struct Answer {
    begun: bool,
    calls: u32,
    finished: bool,
}

impl Order {
    /// Of so many answers, as were asked for.
    pub(super) fn of(answers: u32) -> Self {
        Self { answers: vec![Answer::default(); answers as usize], used: false, bytes: 0 }
    }

    /// Whether the event says anything.
    ///
    /// # Errors
    /// What is wrong with it where it stands.
    pub(super) fn take(&mut self, event: &impl Said) -> Result<bool, String> {
        let (what, wanted) = (event.what(), self.answers.len());
        self.bytes += match what {
            What::Text(text) => text.len(),
            What::Call { name, arguments, .. } => name.len() + arguments.len(),
            What::Finish(_) | What::Usage | What::Unknown => 0,
        };
        if self.bytes > MAX_MESSAGE_BYTES {
            return Err(format!("more than {} MiB", MAX_MESSAGE_BYTES >> 20));
        }
        if matches!(what, What::Unknown) {
            return Ok(event.has_logprobs());
        }
        if self.used {
            return Err("something after the usage".into());
        }
        if matches!(what, What::Usage) {
            self.used = true;
            return Ok(true);
        }
        let number = event.answer();
        let Some(answer) = self.answers.get_mut(number as usize) else {
            return Err(format!("a part of answer {number}, where there are {wanted}, from 0"));
        };
        if answer.finished {
            return Err("something after the finish".into());
        }
        answer.begun = true;
        match what {
            // A token may be no text yet, and have its probability all the same.
            What::Text("") => Ok(event.has_logprobs()),
            What::Call { index, name, .. } if index >= answer.calls => {
                if index != answer.calls || name.is_empty() {
                    return Err(format!("a part of call {index}, which has not begun"));
                }
                if index == MAX_CALLS {
                    return Err(format!("more than {MAX_CALLS} calls"));
                }
                answer.calls += 1;
                Ok(true)
            }
            What::Finish(reason) => {
                if matches!(FinishReason::try_from(reason), Err(_) | Ok(FinishReason::Unspecified)) {
                    return Err(format!("the finish {reason}, which is none"));
                }
                answer.finished = true;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// Whether what has begun has been finished.
    pub(super) fn is_whole(&self) -> bool {
        self.answers.iter().any(|answer| answer.finished) && self.answers.iter().all(|answer| answer.finished || !answer.begun)
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{ToolCallDelta, Usage};

    use super::*;

    fn call(index: u32, name: &str) -> ChatEvent {
        ChatEvent::tool_call(0, ToolCallDelta { index, id: "c".into(), name: name.into(), arguments: "{}".into() })
    }

    fn text() -> ChatEvent {
        ChatEvent::text(0, "one")
    }

    fn finish() -> ChatEvent {
        ChatEvent::finish(0, FinishReason::Stop)
    }

    fn usage() -> ChatEvent {
        ChatEvent::usage(Usage::default())
    }

    /// What passes of these, or what is wrong; and whether it is an answer.
    fn taken(events: &[ChatEvent]) -> (Result<usize, String>, bool) {
        let mut order = Order::of(1);
        let passed: Result<Vec<bool>, String> = events.iter().map(|event| order.take(event)).collect();
        (passed.map(|passed| passed.into_iter().filter(|passed| *passed).count()), order.is_whole())
    }

    #[test]
    fn an_answer_passes_whole() {
        assert_eq!(taken(&[text(), call(0, "a"), call(0, ""), call(1, "b"), finish(), usage()]), (Ok(6), true));
        assert_eq!(taken(&[text(), finish()]), (Ok(2), true), "nobody is kept from an answer by a usage that is left out");
        assert_eq!(taken(&[ChatEvent::text(0, ""), ChatEvent::default(), text(), finish(), usage()]), (Ok(3), true));
    }

    #[test]
    fn what_breaks_off_is_no_answer() {
        for events in [&[][..], &[text()], &[usage()], &[call(0, "a")]] {
            assert!(!taken(events).1, "{events:?}");
        }
    }

    #[test]
    fn what_stands_in_the_wrong_place_is_told() {
        let other = |choice: u32| ChatEvent { choice, ..text() };
        for (events, word) in [
            (vec![text(), finish(), text()], "after the finish"),
            (vec![finish(), finish()], "after the finish"),
            (vec![finish(), usage(), text()], "after the usage"),
            (vec![other(1)], "answer 1"),
            (vec![other(u32::MAX)], "answer 4294967295"),
            (vec![call(0, "")], "not begun"),
            (vec![call(0, "a"), call(2, "b")], "not begun"),
            (vec![call(u32::MAX, "a")], "not begun"),
            (vec![ChatEvent::new(0, chat_event::Event::Finish(99))], "finish 99"),
            (vec![ChatEvent::new(0, chat_event::Event::Finish(0))], "finish 0"),
        ] {
            assert!(taken(&events).0.is_err_and(|told| told.contains(word)), "{word}");
        }
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let mut order = Order::of(1);
        let long = ChatEvent::text(0, "x".repeat(1 << 20));
        assert!((0..65).any(|_| order.take(&long).is_err_and(|told| told.contains("64 MiB"))));
        let mut order = Order::of(1);
        assert!((0..=MAX_CALLS).any(|index| order.take(&call(index, "a")).is_err_and(|told| told.contains("1024 calls"))));
    }
}
