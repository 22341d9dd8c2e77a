//! The promises of the services: in process, over a socket, and through a whole stack. Here those of `Inference`, by the
//! scripted model.

mod agents;
mod tools;

use std::sync::Arc;

use llama_stack_core::{Inference, grpc::Remote};
use llama_stack_proto::v1::{ChatRequest, inference_client::InferenceClient};
use llama_stack_tests::{
    conformance,
    scripted::{MODEL, Scripted},
    served,
};
use tonic::transport::Channel;

use crate::running::{Running, SCRIPTED};

fn routed() -> Arc<dyn Inference> {
    Arc::new(llama_stack_inference::Router::new(vec![("scripted".into(), Arc::new(Scripted::default()) as Arc<dyn Inference>)]))
}

fn long() -> ChatRequest {
    ChatRequest::user(MODEL, "forever")
}

#[tokio::test]
async fn through_the_router() {
    conformance::inference::all(routed(), MODEL, long()).await;
}

#[tokio::test]
async fn over_a_socket() {
    let served = served::inference(routed()).await;
    conformance::inference::all(served.client.clone(), MODEL, long()).await;
}

#[tokio::test]
async fn through_a_stack() {
    let stack = Running::start(SCRIPTED).await;
    let client: Arc<dyn Inference> = Arc::new(Remote::<InferenceClient<Channel>>::new(stack.channel()));
    conformance::inference::all(client, MODEL, long()).await;
    stack.stop().await;
}
