//! `remote::openai`: any server that speaks the OpenAI API, from vLLM on this machine to a host on the network.
//!
//! ```text
//! ChatRequest ─ request, message ─> JSON ─ upstream ─> HTTP (pooled, retried where safe, timed)
//! ChatEvent  <─ events <─ wire <─ sse, stream <───────  the answer, whole or streamed
//!               preset: where servers differ             failure: what their errors are to our callers
//!                                                        tls: whose certificates are trusted
//! ```

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt;
use indexmap::IndexMap;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use llama_stack_core::{
    Context, Deps, Error, EventStream, Inference, Result,
    context::Secret,
    fold::{self, ChatFold},
    grpc, page,
    service::no_such_model,
};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, CompleteEvent, CompleteRequest, CompleteResponse, EmbedRequest, EmbedResponse, ListModelsRequest,
    ListModelsResponse, Model, RerankRequest, RerankResponse, chat_event, complete_event,
};

mod events;
mod failure;
pub mod fuzz;
mod message;
mod models;
mod preset;
mod request;
mod sse;
mod stream;
mod tls;
mod upstream;
mod vectors;
mod wire;

use events::Answers;
use models::ModelConfig;
use preset::Preset;
use upstream::Upstream;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The base of the API, for example `http://127.0.0.1:8000/v1`; one without a path gets `/v1`. Default: the preset's.
    #[serde(default)]
    url: String,
    /// What kind of server it is: see [`preset`]. Default: `compatible`.
    #[serde(default)]
    preset: Option<String>,
    /// Sent as bearer token. A caller's own key for this provider goes before it. Default: none.
    #[serde(default)]
    api_key: Secret,
    /// Sent with every request.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// A file of further authorities in PEM, for servers whose certificate comes from a private one. Default: none but
    /// those that this machine knows.
    #[serde(default)]
    ca_certificate: PathBuf,
    /// The models to offer. Default: whatever the server lists, asked when it is needed.
    #[serde(default)]
    models: Vec<ModelConfig>,
    #[serde(default)]
    timeouts: Timeouts,
    /// Attempts after the first, where they are safe: no connection, or status 429, 502, 503. Default 2.
    #[serde(default = "default_retries")]
    retries: u32,
}

fn default_retries() -> u32 {
    2
}

/// All in seconds, greater than 0.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// To connect. Default 5.
    connect: f64,
    /// Until a stream sends its first byte: the time to read a prompt. Default 120.
    first_byte: f64,
    /// Between two pieces of an answer. Default 60.
    idle: f64,
    /// Of a whole call, streams included. Default 900.
    total: f64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: 5.0, first_byte: 120.0, idle: 60.0, total: 900.0 }
    }
}

impl Timeouts {
    fn check(&self) -> Result<()> {
        for (name, value) in [("connect", self.connect), ("first_byte", self.first_byte), ("idle", self.idle), ("total", self.total)] {
            grpc::seconds_to_wait(&format!("timeouts.{name}"), value)?;
        }
        Ok(())
    }

    fn connect(&self) -> Duration {
        Duration::from_secs_f64(self.connect)
    }

    fn first_byte(&self) -> Duration {
        Duration::from_secs_f64(self.first_byte)
    }

    fn idle(&self) -> Duration {
        Duration::from_secs_f64(self.idle)
    }

    fn total(&self) -> Duration {
        Duration::from_secs_f64(self.total)
    }
}

/// Contacts nobody: a server may start later than this stack.
///
/// # Errors
/// `InvalidArgument` that names what is wrong in the configuration.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Inference>> {
    let preset = preset::named(config.preset.as_deref())?;
    config.timeouts.check()?;
    let authorities = tls::authorities(&config.ca_certificate).await?;
    let upstream = Upstream::new(deps.provider_id, base(&config.url, preset)?, &config, authorities)?;
    let models: IndexMap<String, Model> = config.models.into_iter().map(Model::from).map(|model| (model.id.clone(), model)).collect();
    let endpoints = Endpoints {
        chat: upstream.endpoint("chat/completions"),
        complete: upstream.endpoint("completions"),
        embed: upstream.endpoint("embeddings"),
        rerank: upstream.endpoint("rerank"),
        models: upstream.endpoint("models"),
    };
    Ok(Arc::new(OpenAi { upstream: Arc::new(upstream), preset, models, endpoints }))
}

fn base(url: &str, preset: &Preset) -> Result<Url> {
    let wrong = |what: &str| Error::invalid("config.url", what.to_owned());
    let text = if url.is_empty() { preset.url } else { url };
    if text.is_empty() {
        return Err(wrong("missing field: give the server's base URL, or a preset that has one"));
    }
    let mut url = Url::parse(text).map_err(|error| wrong("not a URL like http://127.0.0.1:8000/v1").with_source(error))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("must begin with http:// or https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a user or password; put the key into api_key"));
    }
    if url.path() == "/" {
        url.set_path("/v1");
    }
    Ok(url)
}

/// `host` or `host:port`: a URL without anything that may be secret.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

struct OpenAi {
    upstream: Arc<Upstream>,
    preset: &'static Preset,
    /// The configured ones; empty means that the server is asked.
    models: IndexMap<String, Model>,
    endpoints: Endpoints,
}

struct Endpoints {
    chat: Url,
    complete: Url,
    embed: Url,
    rerank: Url,
    models: Url,
}

impl OpenAi {
    /// A model's name at the upstream.
    fn upstream_model<'a>(&'a self, id: &'a str) -> Result<&'a str> {
        match self.models.get(id) {
            Some(model) => Ok(&model.provider_model_id),
            None if self.models.is_empty() => Ok(id),
            None => Err(no_such_model(id, self.models.keys().map(String::as_str))),
        }
    }

    async fn open(&self, cx: &Context, url: &Url, body: bytes::Bytes, n: u32) -> Result<EventStream<ChatEvent>> {
        let limit = self.upstream.limit(cx);
        let response = self.upstream.open(cx, url, body, limit).await?;
        Ok(stream::events(self.upstream.clone(), response, limit, n))
    }

    async fn whole(&self, cx: &Context, url: &Url, body: bytes::Bytes, n: u32) -> Result<Vec<ChatEvent>> {
        let body = self.upstream.call(cx, Method::POST, url, body).await?;
        let mut events = Vec::new();
        stream::whole(&self.upstream.name, &body, &mut Answers::new(n), &mut events)?;
        Ok(events)
    }
}

#[async_trait::async_trait]
impl Inference for OpenAi {
    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let mut models: Vec<Model> = if self.models.is_empty() {
            let body = self.upstream.call(cx, Method::GET, &self.endpoints.models, bytes::Bytes::new()).await?;
            models::listed(&self.upstream.name, &body)?
        } else {
            self.models.values().cloned().collect()
        };
        if request.kind != 0 {
            models.retain(|model| model.kind == request.kind);
        }
        let (mut models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        models.iter_mut().for_each(|model| model.provider_id.clone_from(&self.upstream.name.id));
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn chat(&self, cx: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let model = self.upstream_model(&request.model)?;
        let body = request::chat(&self.upstream.name, self.preset, model, &request, false)?;
        let events = self.whole(cx, &self.endpoints.chat, body, request.n).await?;
        let mut fold = ChatFold::default();
        events.into_iter().try_for_each(|event| fold.push(event))?;
        Ok(fold.finish(request.model))
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let model = self.upstream_model(&request.model)?;
        let body = request::chat(&self.upstream.name, self.preset, model, &request, true)?;
        self.open(cx, &self.endpoints.chat, body, request.n).await
    }

    async fn complete(&self, cx: &Context, request: CompleteRequest) -> Result<CompleteResponse> {
        let model = self.upstream_model(&request.model)?;
        let body = request::complete(&self.upstream.name, self.preset, model, &request, false)?;
        let events = self.whole(cx, &self.endpoints.complete, body, request.n).await?;
        let events = futures::stream::iter(events.into_iter().filter_map(completion).map(Ok));
        fold::complete(request.model, Box::pin(events)).await
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let model = self.upstream_model(&request.model)?;
        let body = request::complete(&self.upstream.name, self.preset, model, &request, true)?;
        let events = self.open(cx, &self.endpoints.complete, body, request.n).await?;
        Ok(Box::pin(events.filter_map(async |event| event.map(completion).transpose())))
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let model = self.upstream_model(&request.model)?;
        let body = vectors::embed_body(&self.upstream.name, self.preset, model, &request)?;
        let body = self.upstream.call(cx, Method::POST, &self.endpoints.embed, body).await?;
        vectors::embedded(&self.upstream.name, request.model, request.inputs.len(), &body)
    }

    async fn rerank(&self, cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        let model = self.upstream_model(&request.model)?;
        let body = vectors::rerank_body(model, &request)?;
        let body = self.upstream.call(cx, Method::POST, &self.endpoints.rerank, body).await?;
        vectors::ranked(&self.upstream.name, request.documents.len(), &body)
    }
}

/// The event of a completion: of what a chat may say, only text.
fn completion(event: ChatEvent) -> Option<CompleteEvent> {
    let kind = match event.event? {
        chat_event::Event::Text(text) => complete_event::Event::Text(text),
        chat_event::Event::Finish(reason) => complete_event::Event::Finish(reason),
        chat_event::Event::Usage(usage) => complete_event::Event::Usage(usage),
        _ => return None,
    };
    Some(CompleteEvent { choice: event.choice, event: Some(kind), logprobs: event.logprobs })
}
