//! `remote::grpc`: a router behind a socket is a provider of another.

use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;

use llama_stack_core::{Code, Inference, grpc::Served};
use llama_stack_inference::Router;
use llama_stack_proto::v1::{ChatRequest, GetModelRequest, ListModelsRequest, inference_server::InferenceServer};

use crate::{
    all, cx, openai, provider,
    server::{DONE, FINISHED, Server, Step, chunk, json, nobody, said, spoken, stream, stream_head},
};

/// A stack whose one provider is `upstream`, over gRPC. Stops when it is dropped.
async fn stack(upstream: &Server) -> (String, AbortOnDropHandle<()>) {
    let inner = openai(json!({ "url": upstream.url, "models": ["x"] })).await;
    let router: Arc<dyn Inference> = Arc::new(Router::new(vec![("inner".into(), inner)]));
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
