//! `inline::mistralrs`: the models of one provider, by id.

use std::sync::Arc;

use indexmap::IndexMap;

use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Result, no_such_model, page};
use llama_stack_models::{ModelStore, constraint};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, CompleteEvent, CompleteRequest, ListModelsRequest, ListModelsResponse, ModelKind, SamplingParams,
    TokenizeRequest, TokenizeResponse, complete_request::Prompt, tool_choice::Mode,
};
use tokio_util::task::TaskTracker;

use crate::{
    chat, completion,
    config::{Config, Load},
    engine::Engine,
    generation::Plan,
    grammar::Grammar,
    model::LocalModel,
    prompt,
    sampler::Sampling,
};

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

    /// Templates, tokenizers and grammars compute: not on the threads that serve.
    async fn compute<T: Send + 'static>(&self, cx: &Context, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let work = self.tasks.spawn_blocking(work);
        cx.within(async { work.await.map_err(|error| Error::internal("the prompt could not be prepared").with_source(error))? }).await
    }
}

/// What a chat and a completion ask for alike.
struct Wanted {
    prompt: Vec<u32>,
    sampling: SamplingParams,
    constraint: Option<constraint::Constraint>,
    choices: u32,
    score: Option<usize>,
    max_tokens: Option<u32>,
}

impl Wanted {
    fn plan(self, model: &LocalModel, engine: &Engine) -> Result<Plan> {
        if self.prompt.is_empty() {
            return Err(Error::invalid("prompt", "the prompt is empty"));
        }
        let size = engine.vocabulary.size();
        if let Some(id) = self.prompt.iter().find(|id| **id as usize >= size) {
            return Err(Error::invalid("prompt.tokens", format!("token {id} is beyond the model's {size} tokens")));
        }
        let max_tokens = prompt::room(model.context(engine), self.prompt.len(), self.sampling.max_tokens, self.max_tokens)?;
        let grammar = self.constraint.map(|constraint| Grammar::new(&engine.grammars, &constraint, &engine.ends)).transpose()?;
        let sampling = Sampling::new(&self.sampling, engine.defaults);
        Ok(Plan { prompt: self.prompt, sampling, grammar, max_tokens, choices: self.choices, score: self.score })
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
        let model = self.model(&request.model)?.clone();
        let engine = cx.within(model.engine()).await?;
        let vocabulary = engine.vocabulary.clone();
        if request.tool_choice.as_ref().is_some_and(|choice| choice.mode() == Mode::None) {
            // Not shown to the model, and nothing it writes is taken for a call.
            request.tools.clear();
        }
        let max_tokens = self.max_tokens;
        let (plan, request) = self
            .compute(cx, {
                let model = model.clone();
                move || {
                    let text = model.prompting.render(&model.id, &engine, &request.messages, &request.tools)?;
                    let wanted = Wanted {
                        prompt: engine.encode(&text, false)?,
                        sampling: request.sampling.clone().unwrap_or_default(),
                        constraint: constraint::for_chat(&request)?,
                        choices: request.choices(),
                        score: request.logprobs.then_some(request.top_logprobs as usize),
                        max_tokens,
                    };
                    Ok((wanted.plan(&model, &engine)?, request))
                }
            })
            .await?;
        Ok(chat::events(model.generate(cx, plan).await?, request, vocabulary))
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let model = self.model(&request.model)?.clone();
        let engine = cx.within(model.engine()).await?;
        let vocabulary = engine.vocabulary.clone();
        let max_tokens = self.max_tokens;
        let (plan, echo, request) = self
            .compute(cx, {
                let model = model.clone();
                move || {
                    let prompt = match &request.prompt {
                        Some(Prompt::Text(text)) => engine.encode(text, true)?,
                        Some(Prompt::Tokens(tokens)) => tokens.ids.clone(),
                        None => Vec::new(),
                    };
                    let echo = request.echo.then(|| match &request.prompt {
                        Some(Prompt::Text(text)) => text.clone(),
                        _ => engine.vocabulary.text(&prompt),
                    });
                    let wanted = Wanted {
                        prompt,
                        sampling: request.sampling.clone().unwrap_or_default(),
                        constraint: request.response_format.as_ref().map(constraint::for_format).transpose()?.flatten(),
                        choices: request.choices(),
                        score: request.logprobs.then_some(request.top_logprobs as usize),
                        max_tokens,
                    };
                    Ok((wanted.plan(&model, &engine)?, echo, request))
                }
            })
            .await?;
        Ok(completion::events(model.generate(cx, plan).await?, request, echo, vocabulary))
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let model = self.model(&request.model)?.clone();
        let engine = cx.within(model.engine()).await?;
        self.compute(cx, move || {
            let conversation = !request.messages.is_empty();
            let prompt =
                if conversation { model.prompting.render(&model.id, &engine, &request.messages, &request.tools)? } else { request.text };
            let tokens = engine.encode(&prompt, request.add_special_tokens && !conversation)?;
            let prompt = if conversation { prompt } else { String::new() };
            Ok(TokenizeResponse { tokens, prompt, context_length: model.context(&engine) })
        })
        .await
    }
}
