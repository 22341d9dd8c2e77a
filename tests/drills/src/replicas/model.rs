//! A model whose words take their time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use llama_stack_core::{Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind, Usage};
use tokio::sync::watch;

/// Its id.
pub(super) const MODEL: &str = "paced";
/// Between two words.
const PACE: Duration = Duration::from_millis(5);

/// Answers by the last message: `count N` with the words `1 2 … N`, each an event; `gate` with `answer M`, where it is the
/// M-th who came to the gate, once that is open.
pub(super) struct Paced {
    at_gate: watch::Sender<usize>,
    open: Arc<watch::Sender<bool>>,
}

impl Default for Paced {
    fn default() -> Self {
        Self { at_gate: watch::Sender::new(0), open: Arc::new(watch::Sender::new(false)) }
    }
}

/// What `count N` is answered with.
pub(super) fn counted(n: usize) -> String {
    (1..=n).map(|n| format!("{n} ")).collect()
}

impl Paced {
    pub(super) fn shut(&self) {
        self.open.send_replace(false);
        self.at_gate.send_replace(0);
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Returns once so many have come to the gate.
    pub(super) async fn asked(&self, times: usize) {
        self.at_gate.subscribe().wait_for(|asked| *asked >= times).await.unwrap();
    }
}

#[async_trait]
impl Inference for Paced {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = Model { id: MODEL.into(), kind: ModelKind::Chat.into(), context_length: 4096, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let asked = request.messages.last().map(|message| message.joined_text()).unwrap_or_default();
        let end = stream::iter([Ok(ChatEvent::finish(0, FinishReason::Stop)), Ok(ChatEvent::usage(Usage::default()))]);
        if asked == "gate" {
            let mut number = 0;
            self.at_gate.send_modify(|asked| {
                *asked += 1;
                number = *asked;
            });
            let open = self.open.clone();
            let word = async move {
                // The sender lives as long as the model.
                let _ = open.subscribe().wait_for(|open| *open).await;
                Ok(ChatEvent::text(0, format!("answer {number}")))
            };
            return Ok(Box::pin(stream::once(word).chain(end)));
        }
        let n: usize = asked.strip_prefix("count ").and_then(|n| n.parse().ok()).unwrap_or(1);
        let words = stream::iter(1..=n).then(|n| async move {
            tokio::time::sleep(PACE).await;
            Ok(ChatEvent::text(0, format!("{n} ")))
        });
        Ok(Box::pin(words.chain(end)))
    }
}
