use tonic::transport::Channel;

use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse,
    TokenizeRequest, TokenizeResponse, inference_client::InferenceClient, inference_server,
};

use crate::{Context, Error, EventStream, Result, fold, grpc::grpc_service};

/// Everything that runs a model.
#[async_trait::async_trait]
pub trait Inference: Send + Sync + 'static {
    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse>;

    /// # Errors
    /// `NotFound`, with the ids that there are.
    async fn get_model(&self, cx: &Context, request: GetModelRequest) -> Result<Model> {
        let mut models = self.list_models(cx, ListModelsRequest::default()).await?.models;
        match models.iter().position(|model| model.id == request.id) {
            Some(found) => Ok(models.swap_remove(found)),
            None => Err(no_such_model(&request.id, models.iter().map(|model| model.id.as_str()))),
        }
    }

    async fn chat(&self, cx: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let model = request.model.clone();
        fold::chat(model, self.stream_chat(cx, request).await?).await
    }

    async fn complete(&self, cx: &Context, request: CompleteRequest) -> Result<CompleteResponse> {
        let model = request.model.clone();
        fold::complete(model, self.stream_complete(cx, request).await?).await
    }

    async fn embed(&self, _cx: &Context, _request: EmbedRequest) -> Result<EmbedResponse> {
        Err(Error::unimplemented("Embed"))
    }

    async fn rerank(&self, _cx: &Context, _request: RerankRequest) -> Result<RerankResponse> {
        Err(Error::unimplemented("Rerank"))
    }

    async fn classify(&self, _cx: &Context, _request: ClassifyRequest) -> Result<ClassifyResponse> {
        Err(Error::unimplemented("Classify"))
    }

    async fn tokenize(&self, _cx: &Context, _request: TokenizeRequest) -> Result<TokenizeResponse> {
        Err(Error::unimplemented("Tokenize"))
    }

    async fn stream_chat(&self, _cx: &Context, _request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        Err(Error::unimplemented("StreamChat"))
    }

    async fn stream_complete(&self, _cx: &Context, _request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        Err(Error::unimplemented("StreamComplete"))
    }
}

grpc_service!(Inference, inference_server::Inference, InferenceClient<Channel> {
    unary list_models(ListModelsRequest) -> ListModelsResponse;
    unary get_model(GetModelRequest) -> Model;
    unary chat(ChatRequest) -> ChatResponse;
    unary complete(CompleteRequest) -> CompleteResponse;
    unary embed(EmbedRequest) -> EmbedResponse;
    unary rerank(RerankRequest) -> RerankResponse;
    unary classify(ClassifyRequest) -> ClassifyResponse;
    unary tokenize(TokenizeRequest) -> TokenizeResponse;
    stream stream_chat(ChatRequest) -> ChatEvent as StreamChatStream;
    stream stream_complete(CompleteRequest) -> CompleteEvent as StreamCompleteStream;
});

/// `NotFound` for a model, with what there is.
pub fn no_such_model<'a>(id: &str, there: impl Iterator<Item = &'a str>) -> Error {
    let there: Vec<&str> = there.collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    Error::not_found(format!("no model {id:?}; there is: {there}")).with_reason("model_not_found").with_field("model")
}
