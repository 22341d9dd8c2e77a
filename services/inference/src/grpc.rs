//! `remote::grpc`: another stack, or anybody's server of `llama_stack.v1.Inference`.

use std::{path::PathBuf, sync::Arc};

use futures::StreamExt;
use serde::Deserialize;
use tonic::transport::Channel;

use llama_stack_core::{Code, Context, Deps, Error, EventStream, Inference, Result, context::Secret, grpc};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse,
    TokenizeRequest, TokenizeResponse, inference_client::InferenceClient,
};

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
}

/// Contacts nobody: the server may start later.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Inference>> {
    let address = grpc::Address {
        url: config.url,
        connect_timeout_seconds: config.connect_timeout_seconds,
        api_key: config.api_key,
        ca_certificate: config.ca_certificate,
        pass_identity: config.pass_identity,
    };
    let channel = address.channel()?;
    let url = url::Url::parse(&address.url).map_err(|error| Error::invalid("config.url", "not a URL").with_source(error))?;
    let host = crate::openai::host_of(&url);
    Ok(Arc::new(Peer {
        remote: grpc::Remote::<InferenceClient<Channel>>::new(channel).showing(address.credential(&deps.provider_id)),
        id: deps.provider_id,
        host,
        prefix: config.model_prefix,
    }))
}

/// The server, and what errors call it.
struct Peer {
    remote: grpc::Remote<InferenceClient<Channel>>,
    id: String,
    host: String,
    prefix: String,
}

impl Peer {
    /// An id as the server knows it.
    fn theirs(&self, id: &mut String) -> Result<()> {
        if !id.starts_with(&self.prefix) {
            let message = format!("no model {id:?} at provider {:?}: its ids begin with {:?}", self.id, self.prefix);
            return Err(Error::not_found(message).with_reason("model_not_found").with_field("model"));
        }
        id.drain(..self.prefix.len());
        Ok(())
    }

    fn ours(&self, model: Model) -> Model {
        Model { id: format!("{}{}", self.prefix, model.id), provider_model_id: model.id, ..model }
    }

    fn name(&self, error: Error) -> Error {
        named(&self.id, &self.host, error)
    }

    fn events<T: Send + 'static>(&self, events: EventStream<T>) -> EventStream<T> {
        let (id, host) = (self.id.clone(), self.host.clone());
        Box::pin(events.map(move |event| event.map_err(|error| broken(named(&id, &host, error)))))
    }
}

/// Failures of the connection say whose it is; what the server itself says stands as it is.
fn named(id: &str, host: &str, error: Error) -> Error {
    match error.reason() {
        Some("upstream_unreachable") => error.context(format_args!("provider {id:?} at {host}")),
        _ => error,
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
        self.theirs(&mut request.model)?;
        self.remote.chat(cx, request).await.map_err(|e| self.name(e))
    }

    async fn stream_chat(&self, cx: &Context, mut request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        self.theirs(&mut request.model)?;
        Ok(self.events(self.remote.stream_chat(cx, request).await.map_err(|e| self.name(e))?))
    }

    async fn complete(&self, cx: &Context, mut request: CompleteRequest) -> Result<CompleteResponse> {
        self.theirs(&mut request.model)?;
        self.remote.complete(cx, request).await.map_err(|e| self.name(e))
    }

    async fn stream_complete(&self, cx: &Context, mut request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        self.theirs(&mut request.model)?;
        Ok(self.events(self.remote.stream_complete(cx, request).await.map_err(|e| self.name(e))?))
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
