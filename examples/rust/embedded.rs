//! The whole server inside a program of yours, with a provider of your own: a chat model that answers in capitals.
//!
//! `cargo run --release --bin embedded -- 127.0.0.1:8321`, then ask it with any client.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use llama_stack_core::{Context, Deps, EventStream, Inference, Manifest, Result, no_such_model};
use llama_stack_proto::v1::{ChatEvent, ChatRequest, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind};
use llama_stack_server::{Options, Stack};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

const MANIFEST: &str = "
version: 1
name: embedded
providers:
  inference:
    - { id: loud, type: inline::shout, config: { exclamation_marks: 2 } }
  tools:
    - { id: builtin, type: inline::builtin }
";

/// A provider is a value behind its service's trait.
struct Shout {
    config: Config,
}

/// What the manifest says of it. Unknown keys are refused with file, line and path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    exclamation_marks: usize,
}

async fn build(config: Config, _: Deps) -> Result<Arc<dyn Inference>> {
    Ok(Arc::new(Shout { config }))
}

#[async_trait::async_trait]
impl Inference for Shout {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = Model { id: "shout".into(), kind: ModelKind::Chat.into(), context_length: 4096, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        if request.model != "shout" {
            return Err(no_such_model(&request.model, ["shout"].into_iter()));
        }
        let said = request.messages.last().map(|message| message.joined_text().to_uppercase()).unwrap_or_default();
        let text = said + &"!".repeat(self.config.exclamation_marks);
        let events = [Ok(ChatEvent::text(0, text)), Ok(ChatEvent::finish(0, FinishReason::Stop))];
        Ok(Box::pin(futures::stream::iter(events)))
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut registry = llama_stack_server::registry();
    registry.inference.add("inline::shout", build);

    let manifest = Manifest::parse(MANIFEST, "embedded.yaml")?;
    let home = std::env::temp_dir().join("llama-stack-embedded");
    let stack = Stack::build(manifest, &registry, Options { home, on_progress: Arc::new(|_| {}) }).await?;

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8321".into());
    let listener = llama_stack_server::bind(&address).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    stack.serve(listener, shutdown).await?;
    Ok(())
}
