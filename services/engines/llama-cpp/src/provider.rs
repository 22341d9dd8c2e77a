//! `inline::llama-cpp`: the models of one provider, by id.

use std::{path::PathBuf, sync::Arc, time::Duration};

use indexmap::IndexMap;

use llama_stack_core::{
    Context, Deps, Error, EventStream, Inference, Result,
    forget::{Forget, Keepers},
    no_such_model, page,
};
use llama_stack_models::{
    Load, ModelStore,
    decode::{Lexicon, chat, completion},
};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, CompleteEvent, CompleteRequest, EmbedInput, EmbedRequest, EmbedResponse, Embedding, ListModelsRequest,
    ListModelsResponse, ModelKind, RerankRequest, RerankResponse, RerankResult, TokenizeRequest, TokenizeResponse, Truncation, Usage,
    embed_input,
};
use tokio_util::task::TaskTracker;

use crate::{
    config::{Config, Kind},
    engine::Engine,
    model::LocalModel,
    room::Room,
    vectors::{normalize, score},
    warm,
};

/// Models that run in this process.
struct LlamaCpp {
    provider_id: String,
    models: IndexMap<String, Arc<LocalModel>>,
    max_tokens: Option<u32>,
    home: PathBuf,
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
    let (mut models, room) = (IndexMap::new(), Room::new(config.memory_megabytes));
    let mut files = Vec::new();
    for spec in &config.models {
        files.push(spec.resolve(&store, &deps.on_progress).await?);
    }
    for (index, spec) in config.models.iter().enumerate() {
        let model = LocalModel::new(spec, &files, config.queue, &deps, &room)?;
        if models.insert(spec.id.clone(), model).is_some() {
            return Err(Error::invalid(format!("config.models[{index}].id"), format!("{:?} is the id of an earlier model", spec.id)));
        }
    }
    for model in models.values() {
        match config.load {
            Load::Eager => drop(model.engine().await?),
            Load::Background => load_in_background(model, &deps.tasks),
            Load::Lazy => {}
        }
    }
    for model in models.values() {
        let (model, shutdown) = (model.clone(), deps.shutdown.clone());
        deps.tasks.spawn(async move {
            shutdown.cancelled().await;
            model.save().await;
        });
    }
    if let Some(seconds) = config.keep_alive_seconds {
        unload_when_idle(models.values().cloned().collect(), Duration::from_secs(seconds), &deps);
    }
    let keepers = deps.extensions.get::<Keepers>().cloned();
    let Deps { provider_id, home, tasks, .. } = deps;
    let provider = Arc::new(LlamaCpp { provider_id, models, max_tokens: config.max_tokens, home, tasks });
    if let Some(keepers) = keepers {
        let keeper: Arc<dyn Forget> = provider.clone();
        keepers.enter(&keeper);
    }
    Ok(provider)
}

fn load_in_background(model: &Arc<LocalModel>, tasks: &TaskTracker) {
    let model = model.clone();
    tasks.spawn(async move {
        if let Err(error) = model.engine().await {
            tracing::error!(model = model.id, error = error.message(), "the model could not be loaded");
        }
    });
}

fn unload_when_idle(models: Vec<Arc<LocalModel>>, idle: Duration, deps: &Deps) {
    let shutdown = deps.shutdown.clone();
    let every = (idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(30));
    deps.tasks.spawn(async move {
        while shutdown.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            for model in &models {
                model.unload_after(idle).await;
            }
        }
    });
}

impl LlamaCpp {
    fn model(&self, id: &str) -> Result<&Arc<LocalModel>> {
        self.models.get(id).ok_or_else(|| no_such_model(id, self.models.keys().map(String::as_str)))
    }

    fn of_kind(&self, id: &str, kind: Kind) -> Result<&Arc<LocalModel>> {
        let model = self.model(id)?;
        if model.kind() == kind {
            return Ok(model);
        }
        let does = match model.kind() {
            Kind::Chat => "writes text: ask it for a chat or a completion",
            Kind::Embedding => "embeds texts: ask it for embeddings",
            Kind::Reranker => "scores documents: ask it to rerank",
        };
        Err(Error::invalid("model", format!("model {id:?} {does}")).with_reason("wrong_model_kind"))
    }

    async fn loaded(&self, cx: &Context, model: &Arc<LocalModel>) -> Result<Arc<Lexicon>> {
        Ok(cx.within(model.engine()).await?.lexicon.clone())
    }

    /// Templates, tokenizers and grammars compute: not on the threads that serve.
    async fn compute<T: Send + 'static>(&self, cx: &Context, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let work = self.tasks.spawn_blocking(work);
        cx.within(async { work.await.map_err(|error| Error::internal("the prompt could not be prepared").with_source(error))? }).await
    }
}

#[async_trait::async_trait]
impl Inference for LlamaCpp {
    async fn list_models(&self, _cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let models = self.models.values().map(|model| model.describe(&self.provider_id));
        let wanted = models.filter(|model| request.kind() == ModelKind::Unspecified || model.kind == request.kind);
        let (models, next_page_token) = page::slice(wanted.collect(), |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn stream_chat(&self, cx: &Context, mut request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let model = self.of_kind(&request.model, Kind::Chat)?;
        let lexicon = self.loaded(cx, model).await?;
        let (vocabulary, max_tokens) = (lexicon.vocabulary.clone(), self.max_tokens);
        let plan = self.compute(cx, move || Ok((lexicon.chat(&mut request, max_tokens)?, request)));
        let (plan, request) = plan.await?;
        Ok(chat::events(model.generate(cx, plan).await?, request, vocabulary))
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let model = self.of_kind(&request.model, Kind::Chat)?;
        let lexicon = self.loaded(cx, model).await?;
        let (vocabulary, max_tokens) = (lexicon.vocabulary.clone(), self.max_tokens);
        let plan = self.compute(cx, move || Ok((lexicon.complete(&request, max_tokens)?, request)));
        let ((plan, echo), request) = plan.await?;
        Ok(completion::events(model.generate(cx, plan).await?, request, echo, vocabulary))
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let model = self.of_kind(&request.model, Kind::Embedding)?;
        let lexicon = self.loaded(cx, model).await?;
        let context = model.context_length() as usize;
        let (wanted, cuts) = (request.dimensions as usize, request.truncation() == Truncation::End);
        let texts = request.inputs;
        let (tokens, truncated_inputs) = self.compute(cx, move || embed_inputs(&lexicon, texts, context, cuts)).await?;
        let prompt_tokens = tokens.iter().map(|tokens| to_u32(tokens.len())).sum();
        let mut vectors = model.vectors(cx, tokens).await?;
        if let Some(whole) = vectors.first().map(Vec::len).filter(|whole| wanted > *whole) {
            return Err(Error::invalid("dimensions", format!("dimensions is {wanted}; the vectors of model {:?} have {whole}", model.id)));
        }
        for vector in &mut vectors {
            if wanted > 0 {
                vector.truncate(wanted);
            }
            normalize(vector);
        }
        let embeddings = vectors.into_iter().map(|values| Embedding { values }).collect();
        let usage = Usage { prompt_tokens, ..Usage::default() };
        Ok(EmbedResponse { model: request.model, embeddings, usage: Some(usage), truncated_inputs })
    }

    async fn rerank(&self, cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        let model = self.of_kind(&request.model, Kind::Reranker)?;
        let engine = cx.within(model.engine()).await?;
        let context = model.context_length() as usize;
        let (query, documents, top) = (request.query, request.documents, request.top_n as usize);
        let tokens = self.compute(cx, move || rerank_inputs(&engine, &query, &documents, context)).await?;
        let prompt_tokens = tokens.iter().map(|tokens| to_u32(tokens.len())).sum();
        let scores = model.vectors(cx, tokens).await?.iter().map(|vector| score(vector)).collect::<Result<Vec<f32>>>()?;
        let mut results: Vec<RerankResult> = (0u32..).zip(scores).map(|(index, score)| RerankResult { index, score }).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
        if top > 0 {
            results.truncate(top);
        }
        Ok(RerankResponse { results, usage: Some(Usage { prompt_tokens, ..Usage::default() }) })
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let lexicon = self.loaded(cx, self.model(&request.model)?).await?;
        self.compute(cx, move || lexicon.tokenize(request)).await
    }
}

impl LlamaCpp {
    async fn forget_in_memory(&self, tenant: &str) -> u64 {
        let mut count = 0;
        for model in self.models.values() {
            count += model.forget(tenant).await as u64;
        }
        count
    }
}

/// Prefixes are the text of who sent it, in another form.
#[async_trait::async_trait]
impl Forget for LlamaCpp {
    async fn forget(&self, tenant: &str) -> Result<u64> {
        let mut count = self.forget_in_memory(tenant).await;
        // After the engines, which write what they still keep.
        let (home, whose) = (self.home.clone(), tenant.to_owned());
        let on_disk = self.tasks.spawn_blocking(move || warm::forget(&home, &whose)).await;
        count += on_disk.map_err(|error| Error::internal("kept prefixes could not be removed").with_source(error))??;
        // A model that was loaded meanwhile may have read them from the disk.
        Ok(count + self.forget_in_memory(tenant).await)
    }
}

/// The tokens of each input, and how many inputs were cut.
fn embed_inputs(lexicon: &Lexicon, inputs: Vec<EmbedInput>, context: usize, cuts: bool) -> Result<(Vec<Vec<u32>>, u32)> {
    if inputs.is_empty() {
        return Err(Error::invalid("inputs", "inputs is empty: there is nothing to compute"));
    }
    let (mut all, mut cut) = (Vec::with_capacity(inputs.len()), 0);
    for (at, input) in inputs.into_iter().enumerate() {
        let field = format!("inputs[{at}]");
        let mut tokens = match input.input {
            Some(embed_input::Input::Text(text)) => lexicon.tokens(&text)?,
            Some(embed_input::Input::Tokens(tokens)) => lexicon.checked(tokens.ids, &field)?,
            None => return Err(Error::invalid(&field, format!("{field} has neither text nor tokens"))),
        };
        if tokens.is_empty() {
            return Err(Error::invalid(&field, format!("{field} is empty")));
        }
        if tokens.len() > context {
            if !cuts {
                return Err(Error::context_length(to_u32(context), to_u32(tokens.len())).with_field(field));
            }
            // The last token closes the text for encoders that have such a token.
            let last = tokens.pop();
            tokens.truncate(context.saturating_sub(1));
            tokens.extend(last);
            cut += 1;
        }
        all.push(tokens);
    }
    Ok((all, cut))
}

fn rerank_inputs(engine: &Engine, query: &str, documents: &[String], context: usize) -> Result<Vec<Vec<u32>>> {
    if documents.is_empty() {
        return Err(Error::invalid("documents", "documents is empty: there is nothing to score"));
    }
    if query.is_empty() {
        return Err(Error::invalid("query", "query is empty: it is the text that documents are ranked for"));
    }
    if let Some(at) = documents.iter().position(String::is_empty) {
        return Err(Error::invalid(format!("documents[{at}]"), format!("documents[{at}] is empty")));
    }
    let pair = |(at, document): (usize, &String)| {
        let tokens = engine.pair(query, document);
        if tokens.len() > context {
            return Err(Error::context_length(to_u32(context), to_u32(tokens.len())).with_field(format!("documents[{at}]")));
        }
        Ok(tokens)
    };
    documents.iter().enumerate().map(pair).collect()
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
