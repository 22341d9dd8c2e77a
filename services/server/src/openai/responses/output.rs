//! Writes the items of one inference step, piece by piece, and the events that tell of it.
//!
//! A step that was streamed and one that is read back whole go through here alike, so their items, their ids and their
//! events agree: a step notes in which pieces it came (`pieces`). Where it does not, each of its parts is one delta.
//!
//! Calls of functions are items here. A call that the stack itself runs is told by the step that runs it (`steps`).

use std::collections::HashSet;

use llama_stack_proto::v1::{AgentConfig, ChatEvent, FinishReason, InferenceStep, TokenLogprob, ToolCallDelta, chat_event};
use serde_json::{Map, Value, json};

use super::{
    echo::Echo,
    items::{self, ContentPart, Item, Status},
    namespaces, pieces,
};

/// An event without its sequence number.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) fields: Map<String, Value>,
}

/// Where events go; `None` where nobody listens.
pub(crate) type Events<'a> = Option<&'a mut Vec<Event>>;

pub(crate) struct Writer {
    turn_id: String,
    /// The step's index in its turn.
    step: usize,
    /// `output_index` of the first item.
    base: usize,
    /// The functions that the client runs.
    functions: HashSet<String>,
    namespaces: Vec<String>,
    /// The last one is open while `open`.
    items: Vec<Item>,
    open: bool,
    /// The model's index of the call that began last.
    call: Option<u32>,
    /// How many parts of the message have begun.
    parts: usize,
    /// How many pieces have come.
    pieces: usize,
}

/// What becomes of the last item of a step: one that a limit or a shield has cut off is not whole.
pub(crate) fn status(step: &InferenceStep) -> Status {
    match step.finish_reason() {
        FinishReason::Length | FinishReason::ContentFilter => Status::Incomplete,
        FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Unspecified => Status::Completed,
    }
}

/// A piece of text, by what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
}

impl Writer {
    /// `base`: how many items came before those of this step.
    pub(crate) fn new(turn_id: &str, step: usize, config: &AgentConfig, base: usize) -> Self {
        let functions = config.client_tools.iter().map(|tool| tool.name.clone()).collect();
        let namespaces = Echo::kept(config).namespaces;
        let (items, turn_id) = (Vec::new(), turn_id.to_owned());
        Self { turn_id, step, base, functions, namespaces, items, open: false, call: None, parts: 0, pieces: 0 }
    }

    /// One event of the model.
    pub(crate) fn push(&mut self, event: &ChatEvent, events: &mut Events<'_>) {
        use chat_event::Event as Chat;
        self.pieces += pieces::count(event);
        match &event.event {
            Some(Chat::Text(text)) => self.text(Kind::Text, text, &event.logprobs, events),
            Some(Chat::Refusal(text)) => self.text(Kind::Refusal, text, &[], events),
            Some(Chat::Reasoning(text)) => self.text(Kind::Reasoning, text, &[], events),
            Some(Chat::ToolCall(delta)) => self.call(delta, events),
            Some(Chat::Finish(_) | Chat::Usage(_)) | None => {}
        }
    }

    /// What of a step that has ended was not pushed yet: all of it, where nobody listened while it ran.
    pub(crate) fn rest(&mut self, step: &InferenceStep, events: &mut Events<'_>) {
        let (mut skip, deltas) = match pieces::as_streamed(step) {
            Some(deltas) => (self.pieces, deltas),
            // It does not say how it came, so it came whole or not at all.
            None if self.pieces > 0 => return,
            None => (0, pieces::in_one_piece(step)),
        };
        for (part, delta) in deltas {
            if skip > 0 {
                skip -= pieces::count(&delta).min(skip);
                continue;
            }
            // A part that was taken out has no delta, and keeps its number.
            self.parts = self.parts.max(part);
            self.push(&delta, events);
        }
    }

    /// Says of the text that is open at the end of the step what it rests on. A text that a call has closed before is told
    /// without: what it rests on is known only now, and who watched has had that item.
    pub(crate) fn annotate(&mut self, step: &InferenceStep, events: &mut Events<'_>) {
        let part = self.parts.checked_sub(1).and_then(|part| step.message.as_ref()?.parts.get(part));
        let citations = part.map_or(&[][..], |part| part.citations.as_slice());
        let (id, content_index) = self.place();
        let output_index = self.output_index();
        let Some(ContentPart::OutputText { text, annotations, .. }) = self.content().and_then(|content| content.last_mut()) else { return };
        *annotations = items::annotations(text, citations);
        for (annotation_index, annotation) in annotations.iter().enumerate() {
            emit(events, "response.output_text.annotation.added", || {
                json!({
                    "item_id": id,
                    "output_index": output_index,
                    "content_index": content_index,
                    "annotation_index": annotation_index,
                    "annotation": annotation,
                })
            });
        }
    }

    /// Closes what is open. The items, each with `status`.
    pub(crate) fn finish(mut self, status: Status, events: &mut Events<'_>) -> Vec<Item> {
        self.close(status, events);
        self.items
    }

    fn text(&mut self, kind: Kind, text: &str, logprobs: &[TokenLogprob], events: &mut Events<'_>) {
        if !self.continues(kind) {
            self.begin(kind, events);
        }
        let logprobs: Vec<Value> = logprobs.iter().map(items::logprob).collect();
        let (id, content_index) = self.place();
        if events.is_some() {
            let mut fields = json!({ "item_id": id, "output_index": self.output_index(), "content_index": content_index, "delta": text });
            let kind = match kind {
                Kind::Text => {
                    fields["logprobs"] = logprobs.clone().into();
                    "response.output_text.delta"
                }
                Kind::Refusal => "response.refusal.delta",
                Kind::Reasoning => "response.reasoning_text.delta",
            };
            emit(events, kind, || fields);
        }
        match self.content().and_then(|content| content.last_mut()) {
            Some(ContentPart::OutputText { text: whole, logprobs: all, .. }) => {
                whole.push_str(text);
                all.extend(logprobs);
            }
            Some(ContentPart::Refusal { refusal: whole } | ContentPart::ReasoningText { text: whole }) => whole.push_str(text),
            _ => {}
        }
    }

    /// Whether the open part is of this kind.
    fn continues(&mut self, kind: Kind) -> bool {
        let last = self.content().and_then(|content| content.last());
        let open = match last {
            Some(ContentPart::OutputText { .. }) => Kind::Text,
            Some(ContentPart::Refusal { .. }) => Kind::Refusal,
            Some(ContentPart::ReasoningText { .. }) => Kind::Reasoning,
            _ => return false,
        };
        open == kind
    }

    /// Begins a part; in a new item, unless the open one is a message and takes it.
    fn begin(&mut self, kind: Kind, events: &mut Events<'_>) {
        let in_message = self.open && matches!(self.items.last(), Some(Item::Message { .. }));
        if in_message && kind != Kind::Reasoning {
            self.close_part(events);
        } else {
            self.close(Status::Completed, events);
            let (status, content) = (Status::InProgress, Vec::new());
            let item = match kind {
                Kind::Text | Kind::Refusal => Item::Message { id: self.id("msg"), status, role: "assistant", content },
                Kind::Reasoning => Item::Reasoning { id: self.id("rs"), summary: Vec::new(), content, status },
            };
            self.open_item(item, events);
        }
        self.parts += 1;
        let part = match kind {
            Kind::Text => items::output_text(""),
            Kind::Refusal => ContentPart::Refusal { refusal: String::new() },
            Kind::Reasoning => ContentPart::ReasoningText { text: String::new() },
        };
        if let Some(content) = self.content() {
            content.push(part.clone());
        }
        let (id, content_index) = self.place();
        let output_index = self.output_index();
        emit(
            events,
            "response.content_part.added",
            || json!({ "item_id": id, "output_index": output_index, "content_index": content_index, "part": part }),
        );
    }

    /// Calls come one after the other. A piece of a call that has been closed already is not told as it comes: the whole
    /// call is in the step, and so in the Response.
    fn call(&mut self, delta: &ToolCallDelta, events: &mut Events<'_>) {
        if self.call.is_none_or(|last| delta.index > last) {
            self.close(Status::Completed, events);
            self.call = Some(delta.index);
            if self.functions.contains(&delta.name) {
                let (namespace, name) = namespaces::parted(&self.namespaces, &delta.name);
                let item = Item::FunctionCall {
                    id: self.id("fc"),
                    status: Status::InProgress,
                    call_id: delta.id.clone(),
                    name,
                    namespace,
                    arguments: String::new(),
                };
                self.open_item(item, events);
            }
            self.parts += 1;
        }
        let shown = self.open && self.call == Some(delta.index) && matches!(self.items.last(), Some(Item::FunctionCall { .. }));
        if !shown || delta.arguments.is_empty() {
            return;
        }
        let (id, _) = self.place();
        let output_index = self.output_index();
        emit(
            events,
            "response.function_call_arguments.delta",
            || json!({ "item_id": id, "output_index": output_index, "delta": delta.arguments }),
        );
        if let Some(Item::FunctionCall { arguments, .. }) = self.items.last_mut() {
            arguments.push_str(&delta.arguments);
        }
    }

    fn open_item(&mut self, item: Item, events: &mut Events<'_>) {
        self.items.push(item);
        self.open = true;
        let (output_index, item) = (self.output_index(), self.items.last());
        emit(events, "response.output_item.added", || json!({ "output_index": output_index, "item": item }));
    }

    /// Ends the open item.
    fn close(&mut self, status: Status, events: &mut Events<'_>) {
        if !self.open {
            return;
        }
        self.close_part(events);
        let output_index = self.output_index();
        let Some(item) = self.items.last_mut() else { return };
        item.set_status(status);
        if let Item::FunctionCall { id, arguments, name, .. } = item {
            emit(
                events,
                "response.function_call_arguments.done",
                || json!({ "item_id": id, "output_index": output_index, "arguments": arguments, "name": name }),
            );
        }
        emit(events, "response.output_item.done", || json!({ "output_index": output_index, "item": item }));
        self.open = false;
    }

    /// Ends the open part of the open item.
    fn close_part(&mut self, events: &mut Events<'_>) {
        let (id, content_index) = self.place();
        let output_index = self.output_index();
        let Some(part) = self.content().and_then(|content| content.last()).cloned() else { return };
        let (kind, field, value) = match &part {
            ContentPart::OutputText { text, .. } => ("response.output_text.done", "text", text),
            ContentPart::Refusal { refusal } => ("response.refusal.done", "refusal", refusal),
            ContentPart::ReasoningText { text } => ("response.reasoning_text.done", "text", text),
            ContentPart::InputText { .. } | ContentPart::InputImage { .. } => return,
        };
        emit(events, kind, || {
            let mut fields = json!({ "item_id": id, "output_index": output_index, "content_index": content_index, field: value });
            if let ContentPart::OutputText { logprobs, .. } = &part {
                fields["logprobs"] = logprobs.clone().into();
            }
            fields
        });
        emit(
            events,
            "response.content_part.done",
            || json!({ "item_id": id, "output_index": output_index, "content_index": content_index, "part": part }),
        );
    }

    fn content(&mut self) -> Option<&mut Vec<ContentPart>> {
        match self.items.last_mut() {
            Some(Item::Message { content, .. } | Item::Reasoning { content, .. }) if self.open => Some(content),
            _ => None,
        }
    }

    /// Id of the open item, index of its open part.
    fn place(&mut self) -> (String, usize) {
        let part = self.content().map_or(0, |content| content.len().saturating_sub(1));
        (self.items.last().map(|item| item.id().to_owned()).unwrap_or_default(), part)
    }

    /// Of an item that begins with the next part.
    fn id(&self, prefix: &str) -> String {
        items::step_item_id(prefix, &self.turn_id, self.step, self.parts)
    }

    fn output_index(&self) -> usize {
        self.base + self.items.len().saturating_sub(1)
    }
}

pub(crate) fn emit(events: &mut Events<'_>, kind: &'static str, fields: impl FnOnce() -> Value) {
    if let Some(events) = events.as_deref_mut()
        && let Value::Object(fields) = fields()
    {
        events.push(Event { kind, fields });
    }
}
