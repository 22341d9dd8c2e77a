//! An embedding model that knows words by their letters alone: texts that share words are near each other.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Registry, Result, no_such_model};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, Embedding, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind,
    RerankRequest, RerankResponse, RerankResult, embed_input::Input,
};

use crate::scripted::Config;

/// Its embedding model.
pub const EMBEDDING: &str = "worded";
pub const DIMENSION: u32 = 256;
/// Its re-ranking model: the share of the query's words that a text has.
pub const RERANKER: &str = "worded-reranker";
/// Its chat model: says the question with `rephrased` in front, in as many lines as it has words; fails at `fail`.
pub const CHAT: &str = "worded-chat";

#[derive(Default)]
pub struct Worded {
    /// Texts that were embedded.
    pub embedded: AtomicUsize,
    /// While this is above zero, embedding fails as a server that does not answer does, and counts it down.
    pub failures: AtomicUsize,
    /// Embedding documents waits for this to be open.
    pub gate: tokio::sync::RwLock<()>,
}

/// Registers the type `test::worded`.
pub fn register(registry: &mut Registry) {
    registry.inference.add("test::worded", |_: Config, _: Deps| async { Ok(Arc::new(Worded::default()) as Arc<dyn Inference>) });
}

#[async_trait]
impl Inference for Worded {
    async fn list_models(&self, _: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = |id: &str, kind: ModelKind| Model { id: id.into(), kind: kind.into(), ..Model::default() };
        let embedding = Model { embedding_dimension: DIMENSION, context_length: 256, ..model(EMBEDDING, ModelKind::Embedding) };
        let models = vec![embedding, model(RERANKER, ModelKind::Reranker), model(CHAT, ModelKind::Chat)];
        let wanted = |model: &Model| request.kind == 0 || model.kind == request.kind;
        Ok(ListModelsResponse { models: models.into_iter().filter(wanted).collect(), next_page_token: String::new() })
    }

    async fn embed(&self, _: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        if request.model != EMBEDDING {
            return Err(no_such_model(&request.model, [EMBEDDING].into_iter()));
        }
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Error::unavailable("the embedding model fails, as it was asked to"));
        }
        let _open = self.gate.read().await;
        self.embedded.fetch_add(request.inputs.len(), Ordering::SeqCst);
        let text = |input: &Option<Input>| match input {
            Some(Input::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let embeddings = request.inputs.iter().map(|input| Embedding { values: vector(&text(&input.input)) }).collect();
        Ok(EmbedResponse { model: request.model, embeddings, ..EmbedResponse::default() })
    }

    async fn rerank(&self, _: &Context, request: RerankRequest) -> Result<RerankResponse> {
        if request.model != RERANKER {
            return Err(no_such_model(&request.model, [RERANKER].into_iter()));
        }
        let asked: HashSet<String> = words(&request.query).collect();
        let score = |text: &String| words(text).collect::<HashSet<_>>().intersection(&asked).count() as f32 / asked.len().max(1) as f32;
        let mut results: Vec<RerankResult> =
            request.documents.iter().zip(0..).map(|(text, index)| RerankResult { index, score: score(text) }).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(RerankResponse { results, usage: None })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let asked = request.messages.last().map(|message| message.joined_text()).unwrap_or_default();
        if request.model != CHAT || asked == "fail" {
            return Err(Error::unavailable("the chat model fails, as it was asked to"));
        }
        let said: Vec<String> = words(&asked).map(|word| format!("rephrased {word}")).collect();
        let events = vec![Ok(ChatEvent::text(0, said.join("\n"))), Ok(ChatEvent::finish(0, FinishReason::Stop))];
        Ok(Box::pin(futures::stream::iter(events)))
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Of length 1.
pub fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSION as usize];
    for word in words(text) {
        let mut hasher = DefaultHasher::new();
        word.hash(&mut hasher);
        let hash = hasher.finish();
        for part in 0..4 {
            let at = (hash >> (part * 8)) as usize % vector.len();
            vector[at] += if hash >> (40 + part) & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|number| number / length).collect()
}
