//! Streams of events, folded into whole answers.

use futures::StreamExt;

use llama_stack_proto::v1::{
    ChatChoice, ChatEvent, ChatResponse, CompleteChoice, CompleteEvent, CompleteResponse, FinishReason, Message, Part, Role, ToolCall,
    Usage, chat_event, complete_event, part::Content,
};

use crate::{Error, EventStream, Result};

/// Gathers the events of one chat.
#[derive(Default)]
pub struct ChatFold {
    choices: Vec<ChatChoice>,
    usage: Usage,
}

impl ChatFold {
    /// # Errors
    /// `Internal` for events that no stream may hold: a call's arguments before its beginning.
    pub fn push(&mut self, event: ChatEvent) -> Result<()> {
        use chat_event::Event;
        if let Some(Event::Usage(usage)) = event.event {
            self.usage = usage;
            return Ok(());
        }
        let index = event.choice as usize;
        if index >= 1_024 {
            return Err(Error::internal("the model sent an answer that nobody asked for"));
        }
        while self.choices.len() <= index {
            self.choices.push(ChatChoice { message: Some(Message::new(Role::Assistant, Vec::new())), ..ChatChoice::default() });
        }
        let choice = &mut self.choices[index];
        choice.logprobs.extend(event.logprobs);
        let Some(message) = choice.message.as_mut() else { return Ok(()) };
        match event.event {
            Some(Event::Text(text)) => append(message, Content::Text(text)),
            Some(Event::Refusal(text)) => append(message, Content::Refusal(text)),
            Some(Event::Reasoning(text)) => append(message, Content::Reasoning(text)),
            Some(Event::ToolCall(delta)) => {
                let mut calls = message.parts.iter_mut().filter_map(|part| match &mut part.content {
                    Some(Content::ToolCall(call)) => Some(call),
                    _ => None,
                });
                match calls.nth(delta.index as usize) {
                    Some(call) => call.arguments.push_str(&delta.arguments),
                    None if delta.name.is_empty() => return Err(Error::internal("the model sent arguments of a call that has not begun")),
                    None => message.parts.push(ToolCall::new(delta.id, delta.name, delta.arguments).into()),
                }
            }
            Some(Event::Finish(reason)) => choice.finish_reason = reason,
            Some(Event::Usage(_)) | None => {}
        }
        Ok(())
    }

    pub fn finish(self, model: impl Into<String>) -> ChatResponse {
        ChatResponse { model: model.into(), choices: self.choices, usage: Some(self.usage) }
    }
}

/// Adds to the last part where it is of the same kind.
fn append(message: &mut Message, content: Content) {
    match (message.parts.last_mut().and_then(|part| part.content.as_mut()), &content) {
        (Some(Content::Text(text)), Content::Text(more))
        | (Some(Content::Refusal(text)), Content::Refusal(more))
        | (Some(Content::Reasoning(text)), Content::Reasoning(more)) => text.push_str(more),
        _ => message.parts.push(Part::new(content)),
    }
}

/// # Errors
/// The stream's own, or `Unavailable` where it ended before its last choice did.
pub async fn chat(model: String, mut events: EventStream<ChatEvent>) -> Result<ChatResponse> {
    let mut fold = ChatFold::default();
    while let Some(event) = events.next().await {
        fold.push(event?)?;
    }
    if fold.choices.is_empty() || fold.choices.iter().any(|choice| choice.finish_reason == FinishReason::Unspecified as i32) {
        return Err(broken_off());
    }
    Ok(fold.finish(model))
}

/// # Errors
/// As [`chat`].
pub async fn complete(model: String, mut events: EventStream<CompleteEvent>) -> Result<CompleteResponse> {
    use complete_event::Event;
    let mut response = CompleteResponse { model, ..CompleteResponse::default() };
    while let Some(event) = events.next().await {
        let event = event?;
        if let Some(Event::Usage(usage)) = event.event {
            response.usage = Some(usage);
            continue;
        }
        let index = event.choice as usize;
        if index >= 1_024 {
            return Err(Error::internal("the model sent an answer that nobody asked for"));
        }
        if response.choices.len() <= index {
            response.choices.resize_with(index + 1, CompleteChoice::default);
        }
        let choice = &mut response.choices[index];
        choice.logprobs.extend(event.logprobs);
        match event.event {
            Some(Event::Text(text)) => choice.text.push_str(&text),
            Some(Event::Finish(reason)) => choice.finish_reason = reason,
            Some(Event::Usage(_)) | None => {}
        }
    }
    if response.choices.is_empty() || response.choices.iter().any(|choice| choice.finish_reason == FinishReason::Unspecified as i32) {
        return Err(broken_off());
    }
    Ok(response)
}

/// A generation that stopped without saying that it had.
pub fn broken_off() -> Error {
    Error::unavailable("the model broke off before its answer was done").with_reason("stream_broken")
}
