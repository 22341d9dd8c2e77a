//! The provider: its configuration, how it is built, what it answers.

use std::{sync::Arc, thread::available_parallelism};

use llama_stack_core::{Context, Deps, Error, Inference, Result, page, service::no_such_model};
use llama_stack_models::{ModelSpec, ModelStore, admission::Admission};
use llama_stack_proto::v1::{
    self, Classification, ClassifyRequest, ClassifyResponse, EmbedInput, EmbedRequest, EmbedResponse, Embedding, LabelScore,
    ListModelsRequest, ListModelsResponse, ModelKind, RerankRequest, RerankResponse, RerankResult, TokenizeRequest, TokenizeResponse,
    Truncation, Usage, embed_input,
};
use serde::Deserialize;

use crate::{
    bert::normalize,
    cross_encoder::sigmoid,
    deberta::softmax,
    load::{self, Options},
    model::{Model, Network},
    run::{Computed, Runner},
    tokens::Input,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// At least one. What each may have under `options`: `pooling`, `normalize`, `max_tokens`, `batch_tokens`, `shortens`.
    models: Vec<ModelSpec>,
    /// Batches computed at once. Default: the machine's cores.
    #[serde(default)]
    threads: Option<usize>,
    /// Requests served at once; their batches take turns. Default 16.
    #[serde(default = "default_concurrent")]
    concurrent: usize,
    /// Requests that may wait; the next one is refused. Default 256.
    #[serde(default = "default_queue")]
    queue: usize,
}

fn default_concurrent() -> usize {
    16
}

fn default_queue() -> usize {
    256
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Inference>> {
    if config.models.is_empty() {
        return Err(Error::invalid("config.models", "models is empty: name at least one"));
    }
    let store = ModelStore::open(deps.home.join("models"))?;
    let mut models: Vec<(Arc<Model>, v1::Model)> = Vec::new();
    for (at, spec) in config.models.iter().enumerate() {
        let placed = |error: Error| {
            let field = error.field().map(|field| format!(".{field}")).unwrap_or_default();
            error.with_field(format!("config.models[{at}]{field}"))
        };
        if models.iter().any(|(model, _)| model.id == spec.id) {
            return Err(placed(Error::invalid("id", format!("two models are named {:?}", spec.id))));
        }
        let options: Options = spec.options().map_err(placed)?;
        let files = spec.resolve(&store, &deps.on_progress).await.map_err(placed)?;
        let loading = deps.tasks.spawn_blocking(move || load::load(&files, &options)).await;
        let model = loading.map_err(|error| Error::internal("loading broke off").with_source(error))?.map_err(placed)?;
        let shown = model.describe(&deps.provider_id);
        tracing::info!(model = model.id, provider = deps.provider_id, "model is loaded");
        models.push((Arc::new(model), shown));
    }
    let threads = config.threads.unwrap_or_else(|| available_parallelism().map_or(1, Into::into)).clamp(1, 256);
    let admission = Admission::new(config.concurrent.max(1), config.queue);
    Ok(Arc::new(Candle { models, admission, runner: Runner::new(threads, deps.tasks) }))
}

struct Candle {
    models: Vec<(Arc<Model>, v1::Model)>,
    admission: Admission,
    runner: Runner,
}

impl Candle {
    fn model(&self, id: &str) -> Result<&Arc<Model>> {
        let found = self.models.iter().find(|(model, _)| model.id == id).map(|(model, _)| model);
        found.ok_or_else(|| no_such_model(id, self.models.iter().map(|(model, _)| model.id.as_str())))
    }

    async fn run(&self, cx: &Context, model: &Arc<Model>, inputs: Vec<Input>, truncation: i32) -> Result<Computed> {
        if inputs.is_empty() {
            return Err(Error::invalid("inputs", "inputs is empty: there is nothing to compute"));
        }
        let truncation =
            Truncation::try_from(truncation).map_err(|_| Error::invalid("truncation", format!("{truncation} is no truncation")))?;
        cx.within(async {
            let _permit = self.admission.enter(cx).await?;
            self.runner.run(model, inputs, truncation == Truncation::End).await
        })
        .await
    }
}

#[async_trait::async_trait]
impl Inference for Candle {
    async fn list_models(&self, _cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let wanted = |model: &v1::Model| request.kind == i32::from(ModelKind::Unspecified) || model.kind == request.kind;
        let models = self.models.iter().map(|(_, shown)| shown.clone()).filter(wanted).collect();
        let (models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let model = self.model(&request.model)?;
        if !matches!(model.network, Network::Bert(_)) {
            return Err(wrong_kind(model, "embed"));
        }
        let dimension = dimension(model, request.dimensions)?;
        let inputs = request.inputs.into_iter().enumerate().map(embed_input).collect::<Result<_>>()?;
        let computed = self.run(cx, model, inputs, request.truncation).await?;
        let (usage, truncated_inputs) = (usage(&computed), to_u32(computed.cut));
        let shorten = |mut values: Vec<f32>| {
            if dimension < values.len() {
                values.truncate(dimension);
                normalize(&mut values);
            }
            Embedding { values }
        };
        let embeddings = computed.rows.into_iter().map(shorten).collect();
        Ok(EmbedResponse { model: request.model, embeddings, usage: Some(usage), truncated_inputs })
    }

    async fn classify(&self, cx: &Context, request: ClassifyRequest) -> Result<ClassifyResponse> {
        let model = self.model(&request.model)?;
        if !matches!(model.network, Network::Deberta(_)) {
            return Err(wrong_kind(model, "classify"));
        }
        let inputs = request.inputs.into_iter().enumerate().map(classify_input).collect::<Result<_>>()?;
        let computed = self.run(cx, model, inputs, request.truncation).await?;
        let usage = usage(&computed);
        let scored = |logits: Vec<f32>| {
            let labels = model.labels.iter().zip(softmax(&logits)).zip(logits);
            let scores = labels.map(|((label, score), logit)| LabelScore { label: label.clone(), score, logit }).collect();
            Classification { scores }
        };
        Ok(ClassifyResponse { classifications: computed.rows.into_iter().map(scored).collect(), usage: Some(usage) })
    }

    /// A document that is too long is cut at its end.
    async fn rerank(&self, cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        let model = self.model(&request.model)?;
        if !matches!(model.network, Network::CrossEncoder(_)) {
            return Err(wrong_kind(model, "rerank"));
        }
        if request.query.is_empty() {
            return Err(Error::invalid("query", "query is empty: it is the text that documents are ranked for"));
        }
        if let Some(at) = request.documents.iter().position(String::is_empty) {
            return Err(Error::invalid(format!("documents[{at}]"), format!("documents[{at}] is empty")));
        }
        let pairs = request.documents.into_iter().map(|document| Input::Pair(request.query.clone(), document)).collect();
        let computed = self.run(cx, model, pairs, Truncation::End.into()).await?;
        let usage = usage(&computed);
        let score = |(index, row): (usize, Vec<f32>)| RerankResult {
            index: to_u32(index),
            score: row.first().copied().map(sigmoid).unwrap_or_default(),
        };
        let mut results: Vec<RerankResult> = computed.rows.into_iter().enumerate().map(score).collect();
        // Stable: of equal ones the first stays the first.
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        if request.top_n > 0 {
            results.truncate(request.top_n as usize);
        }
        Ok(RerankResponse { results, usage: Some(usage) })
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let model = self.model(&request.model)?;
        if !request.messages.is_empty() {
            return Err(Error::invalid("messages", format!("model {:?} has no chat template: send text", model.id)));
        }
        let reader = model.clone();
        let split = move || reader.reader.tokenize(&request.text, request.add_special_tokens);
        let (tokens, starts) = cx.within(self.runner.blocking(&model.id, split)).await?;
        Ok(TokenizeResponse { tokens, starts, prompt: String::new(), context_length: to_u32(model.reader.max_tokens()) })
    }
}

fn embed_input((at, input): (usize, EmbedInput)) -> Result<Input> {
    match input.input {
        Some(embed_input::Input::Text(text)) => Ok(Input::Text(text)),
        Some(embed_input::Input::Tokens(tokens)) => Ok(Input::Tokens(tokens.ids)),
        None => Err(Error::invalid(format!("inputs[{at}]"), format!("inputs[{at}] has neither text nor tokens"))),
    }
}

fn wrong_kind(model: &Model, asked: &str) -> Error {
    Error::invalid("model", format!("model {:?} {}; it does not {asked}", model.id, model.does())).with_reason("wrong_model_kind")
}

fn classify_input((at, input): (usize, v1::ClassifyInput)) -> Result<Input> {
    match (input.tokens, input.pair) {
        (Some(_), None) if !input.text.is_empty() => {
            Err(Error::invalid(format!("inputs[{at}]"), format!("inputs[{at}] has both text and tokens: send one of them")))
        }
        (Some(_), Some(_)) => Err(Error::invalid(format!("inputs[{at}].pair"), format!("inputs[{at}]: tokens cannot be judged as a pair"))),
        (Some(tokens), None) => Ok(Input::Tokens(tokens.ids)),
        (None, Some(pair)) => Ok(Input::Pair(input.text, pair)),
        (None, None) => Ok(Input::Text(input.text)),
    }
}

/// How many values each vector shall have.
fn dimension(model: &Model, asked: u32) -> Result<usize> {
    match (asked as usize, model.dimension) {
        (0, whole) => Ok(whole),
        (asked, whole) if asked == whole => Ok(whole),
        (asked, whole) if model.shortens && asked < whole => Ok(asked),
        (asked, whole) => {
            let why = if model.shortens { "can only be made shorter" } else { "cannot be shortened" };
            let message = format!("dimensions is {asked}; the vectors of model {:?} have {whole} and {why}", model.id);
            Err(Error::invalid("dimensions", message))
        }
    }
}

fn usage(computed: &Computed) -> Usage {
    Usage { prompt_tokens: to_u32(computed.tokens), ..Usage::default() }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
