//! A stack serves what it consumes: one stack is another's provider, over gRPC and over the OpenAI API.

use std::sync::Arc;

use llama_stack_core::{Inference, grpc::Remote};
use llama_stack_proto::v1::{ChatRequest, inference_client::InferenceClient};
use llama_stack_tests::{conformance, scripted::MODEL};
use serde_json::json;
use tonic::transport::Channel;

use crate::running::{Running, SCRIPTED};

fn over(kind: &str, url: &str) -> String {
    format!("version: 1\nname: second\nproviders:\n  inference:\n    - {{ id: first, type: \"{kind}\", config: {{ url: \"{url}\" }} }}\n")
}

#[tokio::test]
async fn over_grpc() {
    let first = Running::start(SCRIPTED).await;
    let second = Running::start(&over("remote::grpc", &first.url)).await;
    let client: Arc<dyn Inference> = Arc::new(Remote::<InferenceClient<Channel>>::new(second.channel()));
    conformance::inference::all(client, MODEL, ChatRequest::user(MODEL, "forever")).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn over_the_openai_api() {
    let first = Running::start(SCRIPTED).await;
    let second = Running::start(&over("remote::openai", &format!("{}/v1", first.url))).await;
    let client: Arc<dyn Inference> = Arc::new(Remote::<InferenceClient<Channel>>::new(second.channel()));
    let long = ChatRequest::user(MODEL, "forever");
    conformance::inference::stream_has_one_finish_and_then_usage(client.clone(), MODEL).await;
    conformance::inference::stream_folds_into_the_whole_answer(client.clone(), MODEL).await;
    conformance::inference::unknown_model_says_what_there_is(client.clone(), MODEL).await;
    conformance::inference::past_deadline_is_told(client.clone(), long.clone()).await;
    conformance::inference::dropped_stream_frees_its_slot(client, MODEL, long).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_dead_provider_is_named_and_the_stack_lives() {
    let stack = Running::start(&over("remote::openai", "http://127.0.0.1:9/v1")).await;
    let (status, body) =
        stack.post("/v1/chat/completions", json!({ "model": "first/m", "messages": [{ "role": "user", "content": "hi" }] })).await;
    assert_eq!(status, 503, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("first"), "{body}");
    assert_eq!(stack.get("/v1/health").await.0, 200);
    stack.stop().await;
}
