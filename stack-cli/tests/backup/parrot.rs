//! A model that says what it was told.

use std::sync::Arc;

use futures::stream;
use llama_stack_core::{Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind};
use llama_stack_tests::served::{self, OnSocket};

struct Parrot;

#[async_trait::async_trait]
impl Inference for Parrot {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = Model { id: "parrot".into(), kind: ModelKind::Chat.into(), context_length: 4096, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let text = request.messages.last().unwrap().joined_text();
        Ok(Box::pin(stream::iter([Ok(ChatEvent::text(0, text)), Ok(ChatEvent::finish(0, FinishReason::Stop))])))
    }
}

pub async fn start() -> OnSocket<dyn Inference> {
    served::inference(Arc::new(Parrot)).await
}
