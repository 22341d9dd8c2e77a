//! How a message came, piece by piece, so that its stream can be read back as it was.

use llama_stack_proto::v1::{ChatEvent, Message, chat_event::Event, part::Content};

/// Notes the pieces of one message while it comes.
#[derive(Default)]
pub(crate) struct Pieces {
    pieces: Vec<u32>,
    logprobs: Vec<u32>,
    /// Of the part that is open.
    open: Option<Kind>,
    /// The parts by now, with their bytes.
    parts: Vec<(Kind, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    /// By its index in the answer.
    Call(u32),
}

impl Pieces {
    pub(crate) fn push(&mut self, event: &ChatEvent) {
        match &event.event {
            Some(Event::Text(text)) => self.piece(Kind::Text, text.len(), event.logprobs.len()),
            Some(Event::Refusal(text)) => self.piece(Kind::Refusal, text.len(), 0),
            Some(Event::Reasoning(text)) => self.piece(Kind::Reasoning, text.len(), 0),
            Some(Event::ToolCall(delta)) => {
                if self.open != Some(Kind::Call(delta.index)) {
                    self.piece(Kind::Call(delta.index), 0, 0);
                }
                if !delta.arguments.is_empty() {
                    self.piece(Kind::Call(delta.index), delta.arguments.len(), 0);
                }
            }
            Some(Event::Finish(_) | Event::Usage(_)) | None => {}
        }
    }

    fn piece(&mut self, kind: Kind, bytes: usize, logprobs: usize) {
        // Nothing was said. A call's name is its piece of no bytes.
        if bytes == 0 && logprobs == 0 && !matches!(kind, Kind::Call(_)) {
            return;
        }
        if self.open != Some(kind) {
            self.open = Some(kind);
            self.parts.push((kind, 0));
        }
        if let Some((_, all)) = self.parts.last_mut() {
            *all += bytes;
        }
        self.pieces.push(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.logprobs.push(u32::try_from(logprobs).unwrap_or(u32::MAX));
    }

    /// The pieces and the log-probabilities of each, if the message is made of these parts in this order; else nothing:
    /// a stream that is read back then has one piece a part.
    pub(crate) fn of(self, message: &Message) -> (Vec<u32>, Vec<u32>) {
        let part = |content: &Content| match content {
            Content::Text(text) => Some((Kind::Text, text.len())),
            Content::Refusal(text) => Some((Kind::Refusal, text.len())),
            Content::Reasoning(text) => Some((Kind::Reasoning, text.len())),
            Content::ToolCall(call) => Some((Kind::Call(0), call.arguments.len())),
            Content::Image(_) | Content::ToolResult(_) => None,
        };
        let said: Vec<(Kind, usize)> = message.parts.iter().filter_map(|one| part(one.content.as_ref()?)).collect();
        let any_call = |kind: Kind| if matches!(kind, Kind::Call(_)) { Kind::Call(0) } else { kind };
        let came: Vec<(Kind, usize)> = self.parts.iter().map(|(kind, bytes)| (any_call(*kind), *bytes)).collect();
        if said != came {
            return (Vec::new(), Vec::new());
        }
        let logprobs = if self.logprobs.iter().any(|count| *count > 0) { self.logprobs } else { Vec::new() };
        (self.pieces, logprobs)
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Part, Role, ToolCall, ToolCallDelta};

    use super::*;

    fn call(index: u32, id: &str, arguments: &str) -> ChatEvent {
        ChatEvent::tool_call(0, ToolCallDelta { index, id: id.into(), name: id.into(), arguments: arguments.into() })
    }

    #[test]
    fn a_message_is_cut_where_it_was_cut_when_it_came() {
        let mut pieces = Pieces::default();
        for event in [ChatEvent::text(0, "Hel"), ChatEvent::text(0, "lo"), call(0, "a", ""), call(0, "", "{}"), call(1, "b", "{\"x\":1}")] {
            pieces.push(&event);
        }
        let parts = vec![Part::text("Hello"), ToolCall::new("a", "a", "{}").into(), ToolCall::new("b", "b", "{\"x\":1}").into()];
        assert_eq!(pieces.of(&Message::new(Role::Assistant, parts)), (vec![3, 2, 0, 2, 0, 7], vec![]));
    }

    #[test]
    fn pieces_that_do_not_make_the_message_are_not_kept() {
        let mut pieces = Pieces::default();
        [call(0, "a", ""), call(1, "b", ""), call(0, "", "{}")].iter().for_each(|event| pieces.push(event));
        let parts = vec![ToolCall::new("a", "a", "{}").into(), ToolCall::new("b", "b", "").into()];
        assert_eq!(pieces.of(&Message::new(Role::Assistant, parts)), (vec![], vec![]));
    }
}
