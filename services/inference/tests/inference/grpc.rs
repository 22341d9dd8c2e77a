//! `remote::grpc`: a router behind a socket is a provider of another.

use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;

use llama_stack_core::{Code, Context, Error, EventStream, Inference, Result, grpc::Served};
use llama_stack_inference::Router;
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, EmbedInput, EmbedRequest, EmbedResponse, Embedding, FinishReason, GetModelRequest,
    ListModelsRequest, ListModelsResponse, Model, ModelKind, Usage, inference_server::InferenceServer,
};

use crate::{
    all, cx, openai, provider,
    server::{DONE, FINISHED, Server, Step, chunk, json, nobody, said, spoken, stream, stream_head},
};

/// A stack whose one provider is `upstream`, over gRPC. Stops when it is dropped.
async fn stack(upstream: &Server) -> (String, AbortOnDropHandle<()>) {
    let inner = openai(json!({ "url": upstream.url, "models": ["x"] })).await;
    serve(Arc::new(Router::new(vec![("inner".into(), inner)]))).await
}

async fn serve(router: Arc<dyn Inference>) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tonic::transport::Server::builder().add_service(InferenceServer::new(Served(router)));
    let serving = serving.serve_with_incoming(TcpListenerStream::new(listener));
    (url, AbortOnDropHandle::new(tokio::spawn(async move { serving.await.unwrap() })))
}

#[tokio::test]
async fn a_stack_is_a_provider_of_a_stack() {
    let upstream = Server::start(|_, request| match request.json()["stream"].as_bool() {
        Some(true) => stream(&[said("streamed"), FINISHED.into(), DONE.into()].concat()),
        _ => json(&spoken("whole")),
    })
    .await;
    let (url, _serving) = stack(&upstream).await;
    let peer = provider("remote::grpc", json!({ "url": url, "model_prefix": "far-" })).await.unwrap();
    let outer = Router::new(vec![("peer".into(), peer)]);
    let models = outer.list_models(&cx(), ListModelsRequest::default()).await.unwrap().models;
    assert_eq!((models[0].id.as_str(), models[0].provider_id.as_str(), models[0].provider_model_id.as_str()), ("far-x", "peer", "x"));
    assert_eq!(outer.get_model(&cx(), GetModelRequest { id: "peer/far-x".into() }).await.unwrap().id, "peer/far-x");
    let response = outer.chat(&cx(), ChatRequest::user("far-x", "hi")).await.unwrap();
    assert_eq!((response.model.as_str(), response.choices[0].message.as_ref().unwrap().joined_text().as_str()), ("far-x", "whole"));
    let (events, error) = all(outer.stream_chat(&cx(), ChatRequest::user("far-x", "hi")).await.unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events.len(), 3);
    let error = outer.chat(&cx(), ChatRequest::user("peer/y", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("model_not_found")));
}

#[tokio::test]
async fn dropping_a_stream_reaches_through_every_hop() {
    let upstream = Server::start(|_, _| vec![stream_head(), chunk(said("one").as_bytes()), Step::Hang]).await;
    let (url, _serving) = stack(&upstream).await;
    let peer = provider("remote::grpc", json!({ "url": url })).await.unwrap();
    let mut events = peer.stream_chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap();
    futures::StreamExt::next(&mut events).await.unwrap().unwrap();
    drop(events);
    upstream.client_gone().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let (_held, free) = nobody();
    let peer = provider("remote::grpc", json!({ "url": format!("http://{free}") })).await.unwrap();
    let error = peer.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_unreachable")));
    assert!(error.message().contains("\"up\"") && error.message().contains(&free.to_string()), "{error}");
    let wrong = provider("remote::grpc", json!({ "url": "127.0.0.1:9000" })).await.err().unwrap();
    assert_eq!((wrong.code(), wrong.field()), (Code::InvalidArgument, Some("config.url")));
}

/// Somebody's own server, with the least that one needs: lists, and streams of whatever these events are.
struct Least(Vec<ChatEvent>);

#[async_trait::async_trait]
impl Inference for Least {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = |id: &str, kind: ModelKind| Model { id: id.into(), kind: kind.into(), ..Model::default() };
        let vectors = Model { embedding_dimension: 2, ..model("v", ModelKind::Embedding) };
        Ok(ListModelsResponse { models: vec![model("x", ModelKind::Chat), vectors], ..ListModelsResponse::default() })
    }

    async fn chat(&self, _: &Context, _: ChatRequest) -> Result<ChatResponse> {
        Err(Error::unimplemented("Chat"))
    }

    /// Says nothing more, and does not end, after an event without anything in it.
    async fn stream_chat(&self, _: &Context, _: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let events: Vec<ChatEvent> = self.0.iter().take_while(|event| event.event.is_some()).cloned().collect();
        let hangs = events.len() < self.0.len();
        let events = futures::stream::iter(events.into_iter().map(Ok::<ChatEvent, Error>));
        if hangs {
            return Ok(Box::pin(futures::StreamExt::chain(events, futures::stream::pending())));
        }
        Ok(Box::pin(events))
    }

    async fn embed(&self, _: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let embeddings = vec![Embedding { values: vec![1.0; 3] }; request.inputs.len()];
        Ok(EmbedResponse { embeddings, ..EmbedResponse::default() })
    }
}

fn whole() -> Vec<ChatEvent> {
    vec![ChatEvent::text(0, "hello"), ChatEvent::finish(0, FinishReason::Stop), ChatEvent::usage(Usage::default())]
}

/// A stack that uses such a server, and waits a moment for it.
async fn using(events: Vec<ChatEvent>) -> (Router, AbortOnDropHandle<()>) {
    let (url, serving) = serve(Arc::new(Least(events))).await;
    let peer = provider("remote::grpc", json!({ "url": url, "timeouts": { "idle": 0.2 } })).await.unwrap();
    (Router::new(vec![("far".into(), peer)]), serving)
}

#[tokio::test]
async fn a_server_of_streams_alone_answers_whole_as_well() {
    let (router, _serving) = using(whole()).await;
    let answer = router.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap();
    assert_eq!(answer.choices[0].message.as_ref().unwrap().joined_text(), "hello");
}

/// Nobody gets half an answer for a whole one, and nobody waits for what does not come.
#[tokio::test]
async fn what_is_no_answer_ends_in_an_error_that_says_so() {
    let text = || ChatEvent::text(0, "hello");
    for (events, code, reason) in [
        (vec![text()], Code::Unavailable, "stream_broken"),
        (vec![text(), ChatEvent::finish(0, FinishReason::Stop), text()], Code::Unavailable, "upstream_malformed"),
        (vec![ChatEvent::text(7, "hello")], Code::Unavailable, "upstream_malformed"),
        (vec![text(), ChatEvent::default()], Code::DeadlineExceeded, "upstream_timeout"),
    ] {
        let (router, _serving) = using(events.clone()).await;
        let (_, error) = all(router.stream_chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap()).await;
        let streamed = error.unwrap_or_else(|| panic!("{events:?}"));
        let whole = router.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap_err();
        for error in [streamed, whole] {
            assert_eq!((error.code(), error.reason()), (code, Some(reason)), "{events:?}: {error}");
        }
    }
}

#[tokio::test]
async fn vectors_of_another_dimension_are_the_providers_fault() {
    let (router, _serving) = using(whole()).await;
    router.list_models(&cx(), ListModelsRequest::default()).await.unwrap();
    let request = EmbedRequest { model: "v".into(), inputs: vec![EmbedInput::text("a")], ..EmbedRequest::default() };
    let error = router.embed(&cx(), request).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_malformed")));
    assert!(error.message().contains("3 numbers, where 2 are due"), "{error}");
}

#[tokio::test]
async fn no_patience_is_none() {
    let error = provider("remote::grpc", json!({ "url": "http://127.0.0.1:9", "timeouts": { "total": 0 } })).await.err().unwrap();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("config.timeouts.total")));
}
