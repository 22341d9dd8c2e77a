//! A model's answer that nobody may hear yet.

use std::{convert::Infallible, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use llama_stack_core::{Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{ChatEvent, ChatRequest, Usage, chat_event::Event};

/// Events that are read ahead; then the model waits until the rest is wanted.
const MOST: usize = 4_096;

/// A question to a model, and what has come of the answer. Who drops it stops the model.
pub(crate) struct Ahead {
    events: EventStream<ChatEvent>,
    read: Vec<Result<ChatEvent>>,
    /// Messages of the history that the question is without.
    pub(crate) left_out: usize,
}

impl Ahead {
    /// Nothing is sent before the first event is asked for.
    pub(crate) fn ask(inference: Arc<dyn Inference>, cx: Context, request: ChatRequest, left_out: usize) -> Self {
        let asking = async move { inference.stream_chat(&cx, request).await };
        Self { events: Box::pin(stream::once(asking).try_flatten().fuse()), read: Vec::new(), left_out }
    }

    /// Reads on, and keeps what comes to itself. Never returns; nothing is lost where it is dropped.
    pub(crate) async fn read(&mut self) -> Infallible {
        while self.read.len() < MOST {
            match self.events.next().await {
                Some(event) => self.read.push(event),
                None => break,
            }
        }
        std::future::pending().await
    }

    /// All of the answer, from its beginning.
    pub(crate) fn into_events(self) -> EventStream<ChatEvent> {
        Box::pin(stream::iter(self.read).chain(self.events))
    }

    /// What it has taken so far, as far as can be known: a piece is a token.
    pub(crate) fn usage(&self) -> Usage {
        let events = || self.read.iter().flatten().filter_map(|event| event.event.as_ref());
        let told = events().find_map(|event| if let Event::Usage(usage) = event { Some(*usage) } else { None });
        told.unwrap_or_else(|| {
            let said =
                events().filter(|event| matches!(event, Event::Text(_) | Event::Reasoning(_) | Event::Refusal(_) | Event::ToolCall(_)));
            Usage { completion_tokens: u32::try_from(said.count()).unwrap_or(u32::MAX), ..Usage::default() }
        })
    }
}
