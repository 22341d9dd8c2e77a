//! The model `__NAME__`.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::contract::{
    ChatChoice, ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, FinishReason, GetModelRequest, ListModelsRequest, ListModelsResponse, Message, Model, ModelKind, Part,
    RerankRequest, RerankResponse, Role, TokenizeRequest, TokenizeResponse, Usage, chat_event::Event, inference_server::Inference,
    part::Content,
};

/// What the model is called.
const NAME: &str = "__NAME__";

/// What a caller reads, piece by piece. Dropped when the caller goes away, and what makes the pieces must end with it.
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The model: the pieces of its answer, made when they are asked for. Replace it; this one says again what it was told.
fn generate(said: &str) -> impl Iterator<Item = String> + Send + 'static {
    let words: Vec<String> = format!("You said: {said}").split(' ').map(|word| format!("{word} ")).collect();
    words.into_iter()
}

fn model() -> Model {
    Model { id: NAME.into(), kind: ModelKind::Chat.into(), context_length: 4_096, ..Model::default() }
}

fn find(id: &str) -> Result<Model, Status> {
    if id == NAME { Ok(model()) } else { Err(Status::not_found(format!("no model {id:?}; there is: {NAME}"))) }
}

fn text(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match &part.content {
        Some(Content::Text(text)) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// In this order: the deltas, one finish for each choice, one usage.
fn events(request: &ChatRequest) -> Result<Events<ChatEvent>, Status> {
    find(&request.model)?;
    let Some(last) = request.messages.last() else {
        return Err(Status::invalid_argument("messages is empty; at least one is needed"));
    };
    let limit = request.sampling.as_ref().and_then(|sampling| sampling.max_tokens).unwrap_or(1_000);
    let read = request.messages.iter().map(|message| text(message).split_whitespace().count() as u32).sum();
    let mut pieces = generate(&text(last)).peekable();
    let (mut written, mut step) = (0, 0);
    let next = move || {
        let event = match (step, if written < limit { pieces.next() } else { None }) {
            (0, Some(piece)) => {
                written += 1;
                Event::Text(piece)
            }
            (0, None) => {
                step = 1;
                let finish = if pieces.peek().is_some() { FinishReason::Length } else { FinishReason::Stop };
                Event::Finish(finish.into())
            }
            (1, _) => {
                step = 2;
                Event::Usage(Usage { prompt_tokens: read, completion_tokens: written, ..Usage::default() })
            }
            _ => return None,
        };
        Some(Ok(ChatEvent { event: Some(event), ..ChatEvent::default() }))
    };
    Ok(Box::pin(tokio_stream::iter(std::iter::from_fn(next))))
}

#[derive(Default)]
pub struct Provider;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this provider has a chat model only"))
}

#[tonic::async_trait]
impl Inference for Provider {
    type StreamChatStream = Events<ChatEvent>;
    type StreamCompleteStream = Events<CompleteEvent>;

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let wanted = matches!(request.get_ref().kind(), ModelKind::Unspecified | ModelKind::Chat);
        let models = if wanted { vec![model()] } else { Vec::new() };
        Ok(Response::new(ListModelsResponse { models, ..ListModelsResponse::default() }))
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<Model>, Status> {
        find(&request.get_ref().id).map(Response::new)
    }

    async fn stream_chat(&self, request: Request<ChatRequest>) -> Result<Response<Self::StreamChatStream>, Status> {
        events(request.get_ref()).map(Response::new)
    }

    async fn chat(&self, request: Request<ChatRequest>) -> Result<Response<ChatResponse>, Status> {
        let request = request.into_inner();
        let mut events = events(&request)?;
        let (mut text, mut choice, mut usage) = (String::new(), ChatChoice::default(), None);
        while let Some(event) = events.next().await {
            match event?.event {
                Some(Event::Text(piece)) => text.push_str(&piece),
                Some(Event::Finish(finish)) => choice.finish_reason = finish,
                Some(Event::Usage(used)) => usage = Some(used),
                _ => {}
            }
        }
        let part = Part { content: Some(Content::Text(text)), ..Part::default() };
        choice.message = Some(Message { role: Role::Assistant.into(), parts: vec![part], ..Message::default() });
        Ok(Response::new(ChatResponse { model: request.model, choices: vec![choice], usage }))
    }

    async fn complete(&self, _: Request<CompleteRequest>) -> Result<Response<CompleteResponse>, Status> {
        not_here()
    }

    async fn stream_complete(&self, _: Request<CompleteRequest>) -> Result<Response<Self::StreamCompleteStream>, Status> {
        not_here()
    }

    async fn embed(&self, _: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        not_here()
    }

    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        not_here()
    }

    async fn classify(&self, _: Request<ClassifyRequest>) -> Result<Response<ClassifyResponse>, Status> {
        not_here()
    }

    async fn tokenize(&self, _: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        not_here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(model: &str) -> Request<ChatRequest> {
        let part = Part { content: Some(Content::Text("hello".into())), ..Part::default() };
        let message = Message { role: Role::User.into(), parts: vec![part], ..Message::default() };
        Request::new(ChatRequest { model: model.into(), messages: vec![message], ..ChatRequest::default() })
    }

    #[tokio::test]
    async fn an_answer_ends_with_a_finish_and_a_usage() {
        let events: Vec<_> = Provider.stream_chat(ask(NAME)).await.unwrap().into_inner().collect().await;
        let last: Vec<_> = events.into_iter().rev().take(2).map(|event| event.unwrap().event.unwrap()).collect();
        assert!(matches!(last.as_slice(), [Event::Usage(_), Event::Finish(_)]), "{last:?}");
        let answer = Provider.chat(ask(NAME)).await.unwrap().into_inner();
        assert!(text(answer.choices[0].message.as_ref().unwrap()).contains("hello"));
    }

    #[tokio::test]
    async fn a_model_that_is_not_there_is_not_found() {
        assert_eq!(Provider.chat(ask("nobody")).await.unwrap_err().code(), tonic::Code::NotFound);
    }
}
