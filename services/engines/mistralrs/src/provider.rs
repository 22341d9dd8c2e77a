//! `inline::mistralrs`: the models of one provider, by id.

use std::sync::Arc;

use indexmap::IndexMap;

use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Result, no_such_model, page};
use llama_stack_models::{
    Load, ModelStore,
    decode::{Lexicon, chat, completion},
};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, CompleteEvent, CompleteRequest, ListModelsRequest, ListModelsResponse, ModelKind, TokenizeRequest,
    TokenizeResponse,
};
use tokio_util::task::TaskTracker;

use crate::{config::Config, model::LocalModel};

/// Models that run in this process.
struct MistralRs {
    provider_id: String,
    models: IndexMap<String, Arc<LocalModel>>,
    max_tokens: Option<u32>,
    tasks: TaskTracker,
}

/// Fetches and checks the files of every model; `load` says when weights are read.
///
/// # Errors
/// `InvalidArgument` for no model, one id twice, files that are no model · as [`llama_stack_models::ModelSpec::resolve`].
pub async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Inference>> {
    if config.models.is_empty() {
        return Err(Error::invalid("config.models", "needs at least one model"));
    }
    let store = ModelStore::open(deps.home.join("models"))?;
    let mut models = IndexMap::new();
    for (index, spec) in config.models.iter().enumerate() {
        let files = spec.resolve(&store, &deps.on_progress).await?;
        let model = LocalModel::new(spec, &files, config.queue, deps.tasks.clone())?;
        if models.insert(spec.id.clone(), model).is_some() {
            return Err(Error::invalid(format!("config.models[{index}].id"), format!("{:?} is the id of an earlier model", spec.id)));
        }
    }
    for model in models.values() {
        match config.load {
            Load::Eager => drop(model.engine().await?),
            Load::Background => {
                let model = model.clone();
                deps.tasks.spawn(async move {
                    if let Err(error) = model.engine().await {
                        tracing::error!(model = model.id, error = error.message(), "the model could not be loaded");
                    }
                });
            }
            Load::Lazy => {}
        }
    }
    Ok(Arc::new(MistralRs { provider_id: deps.provider_id, models, max_tokens: config.max_tokens, tasks: deps.tasks }))
}

impl MistralRs {
    fn model(&self, id: &str) -> Result<&Arc<LocalModel>> {
        self.models.get(id).ok_or_else(|| no_such_model(id, self.models.keys().map(String::as_str)))
    }

    async fn loaded(&self, cx: &Context, id: &str) -> Result<(Arc<LocalModel>, Arc<Lexicon>)> {
        let model = self.model(id)?.clone();
        let lexicon = cx.within(model.engine()).await?.lexicon.clone();
        Ok((model, lexicon))
    }

    /// Templates, tokenizers and grammars compute: not on the threads that serve.
    async fn compute<T: Send + 'static>(&self, cx: &Context, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let work = self.tasks.spawn_blocking(work);
        cx.within(async { work.await.map_err(|error| Error::internal("the prompt could not be prepared").with_source(error))? }).await
    }
}

#[async_trait::async_trait]
impl Inference for MistralRs {
    async fn list_models(&self, _cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let wanted = matches!(request.kind(), ModelKind::Unspecified | ModelKind::Chat);
        let models = self.models.values().filter(|_| wanted).map(|model| model.describe(&self.provider_id)).collect();
        let (models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn stream_chat(&self, cx: &Context, mut request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let (model, lexicon) = self.loaded(cx, &request.model).await?;
        let (vocabulary, max_tokens) = (lexicon.vocabulary.clone(), self.max_tokens);
        let plan = self.compute(cx, move || Ok((lexicon.chat(&mut request, max_tokens)?, request)));
        let (plan, request) = plan.await?;
        Ok(chat::events(model.generate(cx, plan).await?, request, vocabulary))
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let (model, lexicon) = self.loaded(cx, &request.model).await?;
        let (vocabulary, max_tokens) = (lexicon.vocabulary.clone(), self.max_tokens);
        let plan = self.compute(cx, move || Ok((lexicon.complete(&request, max_tokens)?, request)));
        let ((plan, echo), request) = plan.await?;
        Ok(completion::events(model.generate(cx, plan).await?, request, echo, vocabulary))
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let (_, lexicon) = self.loaded(cx, &request.model).await?;
        self.compute(cx, move || lexicon.tokenize(request)).await
    }
}
