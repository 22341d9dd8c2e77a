//! An inference step that has ended, as the deltas in which it came.

use llama_stack_proto::v1::{ChatEvent, InferenceStep, Part, TokenLogprob, ToolCallDelta, chat_event::Event, part::Content};

/// Each delta with the index of the part that it belongs to.
pub(crate) type Deltas = Vec<(usize, ChatEvent)>;

/// How many pieces a delta is: a call's name is one, and so is each text, also where both come at once.
pub(crate) fn count(event: &ChatEvent) -> usize {
    match &event.event {
        Some(Event::Text(text) | Event::Refusal(text) | Event::Reasoning(text)) => usize::from(!text.is_empty()),
        Some(Event::ToolCall(delta)) => usize::from(!delta.name.is_empty()) + usize::from(!delta.arguments.is_empty()),
        Some(Event::Finish(_) | Event::Usage(_)) | None => 0,
    }
}

/// The deltas of the step as it was streamed. `None` where it does not say how it came: it was written by a version that
/// did not note it, or a part of it was taken out since.
pub(crate) fn as_streamed(step: &InferenceStep) -> Option<Deltas> {
    let mut reader = Reader { step, piece: 0, texts: 0, logprobs: step.logprobs.as_slice(), deltas: Vec::new() };
    let parts = step.message.as_ref()?.parts.as_slice();
    let mut calls = 0;
    for (index, part) in parts.iter().enumerate() {
        reader.part(index, part, &mut calls)?;
    }
    (reader.piece == step.pieces.len() && reader.piece > 0).then_some(reader.deltas)
}

/// One delta per part.
pub(crate) fn in_one_piece(step: &InferenceStep) -> Deltas {
    let mut logprobs = step.logprobs.clone();
    let mut calls = 0;
    let parts = step.message.iter().flat_map(|message| &message.parts).enumerate();
    let delta = |(index, part): (usize, &Part)| {
        let event = match part.content.clone()? {
            Content::Text(text) => {
                let mut event = ChatEvent::text(0, text);
                event.logprobs = std::mem::take(&mut logprobs);
                event
            }
            Content::Refusal(text) => ChatEvent::new(0, Event::Refusal(text)),
            Content::Reasoning(text) => ChatEvent::new(0, Event::Reasoning(text)),
            Content::ToolCall(call) => {
                calls += 1;
                ChatEvent::tool_call(0, ToolCallDelta { index: calls - 1, id: call.id, name: call.name, arguments: call.arguments })
            }
            Content::Image(_) | Content::ToolResult(_) => return None,
        };
        Some((index, event))
    };
    parts.filter_map(delta).collect()
}

struct Reader<'a> {
    step: &'a InferenceStep,
    /// Into `pieces`.
    piece: usize,
    /// How many of them were text that has log-probabilities.
    texts: usize,
    logprobs: &'a [TokenLogprob],
    deltas: Deltas,
}

impl Reader<'_> {
    fn part(&mut self, index: usize, part: &Part, calls: &mut u32) -> Option<()> {
        match part.content.as_ref()? {
            Content::Text(text) => self.pieces(text, |reader, piece| {
                let mut event = ChatEvent::text(0, piece);
                event.logprobs = reader.take_logprobs();
                reader.deltas.push((index, event));
            }),
            Content::Refusal(text) => self.pieces(text, |reader, piece| {
                reader.deltas.push((index, ChatEvent::new(0, Event::Refusal(piece.into()))));
            }),
            Content::Reasoning(text) => self.pieces(text, |reader, piece| {
                reader.deltas.push((index, ChatEvent::new(0, Event::Reasoning(piece.into()))));
            }),
            Content::ToolCall(call) => {
                (self.next()? == 0).then_some(())?;
                let number = *calls;
                *calls += 1;
                let name = ToolCallDelta { index: number, id: call.id.clone(), name: call.name.clone(), arguments: String::new() };
                self.deltas.push((index, ChatEvent::tool_call(0, name)));
                self.pieces(&call.arguments, |reader, piece| {
                    let arguments = ToolCallDelta { index: number, arguments: piece.into(), ..ToolCallDelta::default() };
                    reader.deltas.push((index, ChatEvent::tool_call(0, arguments)));
                })
            }
            Content::Image(_) | Content::ToolResult(_) => None,
        }
    }

    /// Cuts a text into its pieces. `None` where they do not come to the text.
    fn pieces(&mut self, mut text: &str, mut push: impl FnMut(&mut Self, &str)) -> Option<()> {
        while !text.is_empty() {
            let (piece, rest) = text.split_at_checked(self.next()?).filter(|(piece, _)| !piece.is_empty())?;
            push(self, piece);
            text = rest;
        }
        Some(())
    }

    fn next(&mut self) -> Option<usize> {
        let piece = self.step.pieces.get(self.piece)?;
        self.piece += 1;
        usize::try_from(*piece).ok()
    }

    /// Of the piece that was read last.
    fn take_logprobs(&mut self) -> Vec<TokenLogprob> {
        let counts = &self.step.piece_logprobs;
        // There is a count for each piece, or for each text alone.
        let place = if counts.len() == self.step.pieces.len() { self.piece - 1 } else { self.texts };
        self.texts += 1;
        let count = counts.get(place).map_or(0, |count| *count as usize).min(self.logprobs.len());
        let (taken, rest) = self.logprobs.split_at(count);
        self.logprobs = rest;
        taken.to_vec()
    }
}
