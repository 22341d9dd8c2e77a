//! `remote::grpc`: another stack, or anybody's server of `llama_stack.v1.Inference`.

mod order;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;

use llama_stack_core::{Code, Context, Deps, Error, EventStream, Inference, Result, context::Secret, fold, grpc};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, FinishReason, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, RerankRequest,
    RerankResponse, TokenizeRequest, TokenizeResponse, inference_client::InferenceClient,
};

use crate::validate::MAX_CHOICES;
use order::{Order, Said};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// `http://host:port` or `https://…`.
    url: String,
    /// Default 5, at least 1.
    #[serde(default = "grpc::default_connect_timeout")]
    connect_timeout_seconds: u32,
    /// Shown as `authorization: Bearer …`: an API key of the other stack, or a token.
    #[serde(default)]
    api_key: Secret,
    /// A PEM file of authorities whose certificates count beside those that are known everywhere.
    #[serde(default)]
    ca_certificate: PathBuf,
    /// Whether it is told on whose behalf it is called. Default: only where it is shown no key.
    #[serde(default)]
    pass_identity: Option<bool>,
    /// Put in front of the server's model ids: two stacks with the same models can then be told apart. Default: nothing.
    #[serde(default)]
    model_prefix: String,
    #[serde(default)]
    timeouts: Timeouts,
}

/// How long the server may be silent, in seconds, greater than 0.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Timeouts {
    /// Until the first event of an answer: prompts may wait for each other. Default 600.
    first_byte: f64,
    /// Between two events. Default 120.
    idle: f64,
    /// Of a whole call, streams included. Default 3600.
    total: f64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_byte: 600.0, idle: 120.0, total: 3_600.0 }
    }
}

/// The same, checked.
#[derive(Clone, Copy)]
struct Patience {
    first: Duration,
    idle: Duration,
    total: Duration,
}

impl Timeouts {
    fn patience(self) -> Result<Patience> {
        Ok(Patience {
            first: grpc::seconds_to_wait("timeouts.first_byte", self.first_byte)?,
            idle: grpc::seconds_to_wait("timeouts.idle", self.idle)?,
            total: grpc::seconds_to_wait("timeouts.total", self.total)?,
        })
    }
}

/// Contacts nobody: the server may start later.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Inference>> {
    let patience = config.timeouts.patience()?;
    let address = grpc::Address {
        connect_timeout_seconds: config.connect_timeout_seconds,
        api_key: config.api_key,
        ca_certificate: config.ca_certificate,
        pass_identity: config.pass_identity,
        ..grpc::Address::new(config.url)
    };
    let channel = address.channel()?;
    let url = url::Url::parse(&address.url).map_err(|error| Error::invalid("config.url", "not a URL").with_source(error))?;
    let host = crate::openai::host_of(&url);
    Ok(Arc::new(Peer {
        remote: grpc::Remote::<InferenceClient<Channel>>::new(channel)
            .showing(address.credential(&deps.provider_id))
            .limited(patience.total),
        name: Name { id: deps.provider_id, host },
        prefix: config.model_prefix,
        patience,
    }))
}

struct Peer {
    remote: grpc::Remote<InferenceClient<Channel>>,
    name: Name,
    prefix: String,
    patience: Patience,
}

const SILENT: &str = "sent nothing for";
const UNDONE: &str = "was not done within";

/// What errors call the server.
#[derive(Clone)]
struct Name {
    id: String,
    host: String,
}

impl Name {
    /// Failures of the connection say whose it is; what the server itself says stands as it is.
    fn named(&self, error: Error) -> Error {
        match error.reason() {
            Some("upstream_unreachable" | "upstream_malformed") => error.context(format_args!("provider {:?} at {}", self.id, self.host)),
            _ => error,
        }
    }

    /// An answer that the contract does not know.
    fn malformed(&self, what: impl fmt::Display) -> Error {
        self.named(Error::unavailable(format!("sent what is no answer: {what}")).with_reason("upstream_malformed"))
    }

    fn late(&self, what: &str, waited: Duration) -> Error {
        let message = format!("provider {:?} at {} {what} {} s", self.id, self.host, waited.as_secs_f64());
        Error::new(Code::DeadlineExceeded, message).with_reason("upstream_timeout")
    }
}

impl Peer {
    /// An id as the server knows it.
    fn theirs(&self, id: &mut String) -> Result<()> {
        if !id.starts_with(&self.prefix) {
            let message = format!("no model {id:?} at provider {:?}: its ids begin with {:?}", self.name.id, self.prefix);
            return Err(Error::not_found(message).with_reason("model_not_found").with_field("model"));
        }
        id.drain(..self.prefix.len());
        Ok(())
    }

    fn ours(&self, model: Model) -> Model {
        Model { id: format!("{}{}", self.prefix, model.id), provider_model_id: model.id, ..model }
    }

    fn name(&self, error: Error) -> Error {
        self.name.named(error)
    }

    /// An answer that came whole has at least one choice, and each its end.
    fn all_finished(&self, mut reasons: impl ExactSizeIterator<Item = FinishReason>) -> Result<()> {
        if reasons.len() == 0 {
            return Err(self.name.malformed("no choice"));
        }
        if reasons.any(|reason| reason == FinishReason::Unspecified) {
            return Err(self.name.malformed("a choice without a finish_reason"));
        }
        Ok(())
    }

    /// Opening a stream, or its first event: either may be what is waited for.
    async fn opened<T>(&self, opening: impl Future<Output = Result<EventStream<T>>>) -> Result<EventStream<T>> {
        match timeout(self.patience.first, opening).await {
            Ok(opened) => opened.map_err(|error| self.name(error)),
            Err(_) => Err(self.name.late(SILENT, self.patience.first)),
        }
    }

    /// What the server sends, in time, and as long as it is an answer.
    fn events<T: Said>(&self, answers: u32, mut events: EventStream<T>) -> EventStream<T> {
        let (name, patience) = (self.name.clone(), self.patience);
        let (end, mut order) = (Instant::now() + patience.total, Order::of(answers));
        Box::pin(async_stream::try_stream! {
            let mut wait = patience.first;
            loop {
                let next = match timeout_at(end.min(Instant::now() + wait), events.next()).await {
                    Ok(next) => next,
                    Err(_) if Instant::now() >= end => Some(Err(name.late(UNDONE, patience.total))),
                    Err(_) => Some(Err(name.late(SILENT, wait))),
                };
                let event = match next {
                    Some(event) => event.map_err(|error| broken(name.named(error)))?,
                    None => break,
                };
                if order.take(&event).map_err(|what| name.malformed(what))? {
                    yield event;
                }
                wait = patience.idle;
            }
            if !order.is_whole() {
                Err::<(), Error>(fold::broken_off())?;
            }
        })
    }
}

/// After its first event a stream is not unreachable but broken.
fn broken(error: Error) -> Error {
    let lost = error.reason() == Some("upstream_unreachable");
    if lost {
        Error::new(Code::Unavailable, "the provider broke off before its answer was done").with_reason("stream_broken").with_source(error)
    } else {
        error
    }
}

#[async_trait::async_trait]
impl Inference for Peer {
    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let mut response = self.remote.list_models(cx, request).await.map_err(|e| self.name(e))?;
        response.models = response.models.into_iter().map(|model| self.ours(model)).collect();
        Ok(response)
    }

    async fn get_model(&self, cx: &Context, mut request: GetModelRequest) -> Result<Model> {
        self.theirs(&mut request.id)?;
        Ok(self.ours(self.remote.get_model(cx, request).await.map_err(|e| self.name(e))?))
    }

    async fn chat(&self, cx: &Context, mut request: ChatRequest) -> Result<ChatResponse> {
        let asked = request.clone();
        self.theirs(&mut request.model)?;
        match self.remote.chat(cx, request).await {
            // Streams are all that a server needs to have.
            Err(error) if error.code() == Code::Unimplemented => fold::chat(asked.model.clone(), self.stream_chat(cx, asked).await?).await,
            answer => {
                let answer = answer.map_err(|error| self.name(error))?;
                self.all_finished(answer.choices.iter().map(|choice| choice.finish_reason()))?;
                Ok(answer)
            }
        }
    }

    async fn stream_chat(&self, cx: &Context, mut request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        self.theirs(&mut request.model)?;
        let answers = request.n.clamp(1, MAX_CHOICES);
        Ok(self.events(answers, self.opened(self.remote.stream_chat(cx, request)).await?))
    }

    async fn complete(&self, cx: &Context, mut request: CompleteRequest) -> Result<CompleteResponse> {
        let asked = request.clone();
        self.theirs(&mut request.model)?;
        match self.remote.complete(cx, request).await {
            Err(error) if error.code() == Code::Unimplemented => {
                fold::complete(asked.model.clone(), self.stream_complete(cx, asked).await?).await
            }
            answer => {
                let answer = answer.map_err(|error| self.name(error))?;
                self.all_finished(answer.choices.iter().map(|choice| choice.finish_reason()))?;
                Ok(answer)
            }
        }
    }

    async fn stream_complete(&self, cx: &Context, mut request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        self.theirs(&mut request.model)?;
        let answers = request.n.clamp(1, MAX_CHOICES);
        Ok(self.events(answers, self.opened(self.remote.stream_complete(cx, request)).await?))
    }

    async fn embed(&self, cx: &Context, mut request: EmbedRequest) -> Result<EmbedResponse> {
        self.theirs(&mut request.model)?;
        self.remote.embed(cx, request).await.map_err(|e| self.name(e))
    }

    async fn rerank(&self, cx: &Context, mut request: RerankRequest) -> Result<RerankResponse> {
        self.theirs(&mut request.model)?;
        self.remote.rerank(cx, request).await.map_err(|e| self.name(e))
    }

    async fn classify(&self, cx: &Context, mut request: ClassifyRequest) -> Result<ClassifyResponse> {
        self.theirs(&mut request.model)?;
        self.remote.classify(cx, request).await.map_err(|e| self.name(e))
    }

    async fn tokenize(&self, cx: &Context, mut request: TokenizeRequest) -> Result<TokenizeResponse> {
        self.theirs(&mut request.model)?;
        self.remote.tokenize(cx, request).await.map_err(|e| self.name(e))
    }
}
