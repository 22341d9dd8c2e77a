//! Model id → provider; itself an `Inference`.

use std::{sync::Arc, time::Duration};

use futures::future::Either;

use llama_stack_core::{Code, Context, Error, EventStream, Inference, Result, page};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, ModelKind, RerankRequest, RerankResponse,
    TokenizeRequest, TokenizeResponse,
};

use crate::{
    answers,
    catalogue::{Catalogue, Entry},
    validate::{self, Validator},
};

/// Sends each request to the provider that has its model, after checking it once for all of them.
///
/// A plain id goes to the first provider, in the manifest's order, that has it; `provider_id/model` goes to that provider.
/// Answers carry the id that was asked for. Deadlines end unary calls and streams, whatever the provider does about them.
pub struct Router {
    catalogue: Catalogue,
    validator: Validator,
}

impl Router {
    /// Providers by their ids, in the manifest's order. Contacts nobody: lists are read when they are needed.
    pub fn new(providers: Vec<(String, Arc<dyn Inference>)>) -> Self {
        Self { catalogue: Catalogue::new(providers), validator: Validator::default() }
    }

    /// How old the list of a provider's models may grow before it is read again. Default: 30 s.
    #[must_use]
    pub fn with_lists_fresh_for(self, age: Duration) -> Self {
        Self { catalogue: self.catalogue.fresh_for(age), ..self }
    }

    /// The providers that run in this process, by id: who lists models, or looks at one, is told how they are now.
    #[must_use]
    pub fn with_near(self, ids: &[&str]) -> Self {
        Self { catalogue: self.catalogue.near(ids), ..self }
    }

    /// The provider of `model`, which becomes the id that the provider knows, and the id that was asked for.
    async fn route(&self, cx: &Context, model: &mut String, wanted: ModelKind) -> Result<(&Entry, String)> {
        let asked = model.clone();
        let found = cx.within(self.catalogue.find(&asked)).await?;
        if let Some(known) = found.model(&asked) {
            suits(&asked, known.kind(), wanted)?;
        }
        model.drain(..found.skip);
        Ok((found.entry, asked))
    }

    /// Waits for the provider, and meanwhile has aged lists read again.
    async fn call<T: Send>(&self, cx: &Context, entry: &Entry, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let result = match self.catalogue.due() {
            None => cx.within(work).await,
            Some(due) => cx.within(beside(work, due)).await,
        };
        if let Err(error) = &result
            && error.code() == Code::NotFound
        {
            entry.doubt();
        }
        result
    }
}

#[async_trait::async_trait]
impl Inference for Router {
    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let refreshed = async {
            self.catalogue.refresh().await;
            Ok(())
        };
        cx.within(refreshed).await?;
        let mut models = self.catalogue.models();
        if request.kind != ModelKind::Unspecified as i32 {
            models.retain(|model| model.kind == request.kind);
        }
        let (models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn get_model(&self, cx: &Context, request: GetModelRequest) -> Result<Model> {
        let asked = request.id;
        let found = cx.within(self.catalogue.find(&asked)).await?;
        let entry = found.entry;
        let model = match found.model(&asked) {
            Some(model) if !entry.near => model.clone(),
            _ => self.call(cx, entry, entry.inference.get_model(cx, GetModelRequest { id: asked[found.skip..].to_owned() })).await?,
        };
        Ok(entry.present(asked, model))
    }

    async fn chat(&self, cx: &Context, mut request: ChatRequest) -> Result<ChatResponse> {
        self.validator.chat(&request)?;
        let (entry, asked) = self.route(cx, &mut request.model, ModelKind::Chat).await?;
        let response = self.call(cx, entry, entry.inference.chat(cx, request)).await?;
        Ok(ChatResponse { model: asked, ..response })
    }

    async fn stream_chat(&self, cx: &Context, mut request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        self.validator.chat(&request)?;
        let (entry, _) = self.route(cx, &mut request.model, ModelKind::Chat).await?;
        Ok(cx.until_deadline(self.call(cx, entry, entry.inference.stream_chat(cx, request)).await?))
    }

    async fn complete(&self, cx: &Context, mut request: CompleteRequest) -> Result<CompleteResponse> {
        self.validator.complete(&request)?;
        let (entry, asked) = self.route(cx, &mut request.model, ModelKind::Chat).await?;
        let response = self.call(cx, entry, entry.inference.complete(cx, request)).await?;
        Ok(CompleteResponse { model: asked, ..response })
    }

    async fn stream_complete(&self, cx: &Context, mut request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        self.validator.complete(&request)?;
        let (entry, _) = self.route(cx, &mut request.model, ModelKind::Chat).await?;
        Ok(cx.until_deadline(self.call(cx, entry, entry.inference.stream_complete(cx, request)).await?))
    }

    async fn embed(&self, cx: &Context, mut request: EmbedRequest) -> Result<EmbedResponse> {
        validate::embed(&request)?;
        let (entry, asked) = self.route(cx, &mut request.model, ModelKind::Embedding).await?;
        // Shortened, they may have any length.
        let due = if request.dimensions == 0 { entry.dimension(&request.model) } else { 0 };
        let inputs = request.inputs.len();
        let response = self.call(cx, entry, entry.inference.embed(cx, request)).await?;
        answers::embedded(&entry.id, inputs, due, &response)?;
        Ok(EmbedResponse { model: asked, ..response })
    }

    async fn rerank(&self, cx: &Context, mut request: RerankRequest) -> Result<RerankResponse> {
        validate::rerank(&request)?;
        let (entry, _) = self.route(cx, &mut request.model, ModelKind::Reranker).await?;
        let documents = request.documents.len();
        let response = self.call(cx, entry, entry.inference.rerank(cx, request)).await?;
        answers::ranked(&entry.id, documents, &response)?;
        Ok(response)
    }

    async fn classify(&self, cx: &Context, mut request: ClassifyRequest) -> Result<ClassifyResponse> {
        validate::classify(&request)?;
        let (entry, _) = self.route(cx, &mut request.model, ModelKind::Classifier).await?;
        let inputs = request.inputs.len();
        let response = self.call(cx, entry, entry.inference.classify(cx, request)).await?;
        answers::classified(&entry.id, inputs, &response)?;
        Ok(response)
    }

    async fn tokenize(&self, cx: &Context, mut request: TokenizeRequest) -> Result<TokenizeResponse> {
        validate::tokenize(&request)?;
        let (entry, _) = self.route(cx, &mut request.model, ModelKind::Unspecified).await?;
        self.call(cx, entry, entry.inference.tokenize(cx, request)).await
    }
}

/// A model of a known kind must be of the wanted one. Only the provider can say whether its chat model embeds as well.
fn suits(id: &str, kind: ModelKind, wanted: ModelKind) -> Result<()> {
    let either = |kind| matches!(kind, ModelKind::Unspecified);
    if either(kind) || either(wanted) || kind == wanted || (kind, wanted) == (ModelKind::Chat, ModelKind::Embedding) {
        return Ok(());
    }
    let message = format!("the model {id:?} is {}; this call needs {}", described(kind), described(wanted));
    Err(Error::invalid("model", message).with_reason("wrong_model_kind"))
}

fn described(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Unspecified => "of an unknown kind",
        ModelKind::Chat => "a chat model",
        ModelKind::Embedding => "an embedding model",
        ModelKind::Classifier => "a classifier",
        ModelKind::Reranker => "a reranker",
    }
}

/// `work`, with `chore` begun before it and driven while it waits; what is left of the chore then is dropped.
async fn beside<T>(work: impl Future<Output = T> + Send, chore: impl Future<Output = ()> + Send) -> T {
    let (work, chore) = (std::pin::pin!(work), std::pin::pin!(chore));
    match futures::future::select(chore, work).await {
        Either::Left(((), work)) => work.await,
        Either::Right((done, _)) => done,
    }
}
