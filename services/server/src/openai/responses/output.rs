//! Writes the items of one inference step, piece by piece, and the events that tell of it.
//!
//! A step that was streamed and one that is read back whole go through here alike, so their items and ids agree.

use llama_stack_proto::v1::{ChatEvent, FinishReason, InferenceStep, TokenLogprob, ToolCallDelta, chat_event, part::Content};
use serde_json::{Map, Value, json};

use super::items::{self, ContentPart, Item, Status};

/// An event without its sequence number.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) fields: Map<String, Value>,
}

/// Where events go; `None` where nobody listens.
pub(crate) type Events<'a> = Option<&'a mut Vec<Event>>;

pub(crate) struct Writer {
    /// What the ids of this step's items share.
    stem: String,
    /// `output_index` of the first item.
    base: usize,
    /// The last one is open while `open`.
    items: Vec<Item>,
    open: bool,
    /// The model's index of the call that is open.
    call: u32,
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
    pub(crate) fn new(step_id: &str, base: usize) -> Self {
        let stem = step_id.strip_prefix("step_").unwrap_or(step_id).to_owned();
        Self { stem, base, items: Vec::new(), open: false, call: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// One event of the model.
    pub(crate) fn push(&mut self, event: &ChatEvent, events: &mut Events<'_>) {
        use chat_event::Event as Chat;
        match &event.event {
            Some(Chat::Text(text)) => self.text(Kind::Text, text, &event.logprobs, events),
            Some(Chat::Refusal(text)) => self.text(Kind::Refusal, text, &[], events),
            Some(Chat::Reasoning(text)) => self.text(Kind::Reasoning, text, &[], events),
            Some(Chat::ToolCall(delta)) => self.call(delta, events),
            Some(Chat::Finish(_) | Chat::Usage(_)) | None => {}
        }
    }

    /// A step that was not streamed to us: its message, as if it came in one piece.
    pub(crate) fn whole(&mut self, step: &InferenceStep, events: &mut Events<'_>) {
        let mut logprobs = step.logprobs.as_slice();
        let mut calls = 0;
        for part in step.message.iter().flat_map(|message| &message.parts) {
            match &part.content {
                Some(Content::Text(text)) => self.text(Kind::Text, text, std::mem::take(&mut logprobs), events),
                Some(Content::Refusal(text)) => self.text(Kind::Refusal, text, &[], events),
                Some(Content::Reasoning(text)) => self.text(Kind::Reasoning, text, &[], events),
                Some(Content::ToolCall(call)) => {
                    let (id, name, arguments) = (call.id.clone(), call.name.clone(), call.arguments.clone());
                    self.call(&ToolCallDelta { index: calls, id, name, arguments }, events);
                    calls += 1;
                }
                Some(Content::Image(_) | Content::ToolResult(_)) | None => {}
            }
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
            let n = self.items.len();
            let (status, content) = (Status::InProgress, Vec::new());
            self.open_item(
                match kind {
                    Kind::Text | Kind::Refusal => {
                        Item::Message { id: format!("msg_{}{n:02}", self.stem), status, role: "assistant", content }
                    }
                    Kind::Reasoning => Item::Reasoning { id: format!("rs_{}{n:02}", self.stem), summary: Vec::new(), content, status },
                },
                events,
            );
        }
        let part = match kind {
            Kind::Text => ContentPart::OutputText { text: String::new(), annotations: Vec::new(), logprobs: Vec::new() },
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

    fn call(&mut self, delta: &ToolCallDelta, events: &mut Events<'_>) {
        let continues = self.open && self.call == delta.index && matches!(self.items.last(), Some(Item::FunctionCall { .. }));
        if !continues {
            self.close(Status::Completed, events);
            self.call = delta.index;
            let call = llama_stack_proto::v1::ToolCall::new(&delta.id, &delta.name, "");
            self.open_item(items::function_call(&self.stem, self.items.len(), &call, Status::InProgress), events);
        }
        if delta.arguments.is_empty() {
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
        match item {
            Item::Message { status: now, .. }
            | Item::FunctionCall { status: now, .. }
            | Item::FunctionCallOutput { status: now, .. }
            | Item::Reasoning { status: now, .. } => *now = status,
        }
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

    fn output_index(&self) -> usize {
        self.base + self.items.len().saturating_sub(1)
    }
}

fn emit(events: &mut Events<'_>, kind: &'static str, fields: impl FnOnce() -> Value) {
    if let Some(events) = events.as_deref_mut()
        && let Value::Object(fields) = fields()
    {
        events.push(Event { kind, fields });
    }
}
