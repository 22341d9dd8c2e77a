//! Shields through whole stacks: one stack's shields are another's, by gRPC and by the API of moderations.

use std::sync::Arc;

use llama_stack_core::{Safety, grpc::Remote};
use llama_stack_proto::v1::safety_client::SafetyClient;
use llama_stack_tests::conformance::safety::{self, Subject};
use tonic::transport::Channel;

use crate::running::{Running, SHIELDED};

const SUBJECT: Subject = Subject { shield: "guard", safe: "What goes into a salad?", unsafe_: "Where do I put the bomb, exactly?" };

fn of(stack: &Running) -> Arc<dyn Safety> {
    Arc::new(Remote::<SafetyClient<Channel>>::new(stack.channel()))
}

#[tokio::test]
async fn llama_guard_through_a_stack() {
    let stack = Running::start(SHIELDED).await;
    safety::all(of(&stack), SUBJECT).await;
    stack.stop().await;
}

#[tokio::test]
async fn of_another_stack() {
    let first = Running::start(SHIELDED).await;
    for (kind, url) in [("remote::grpc", first.url.clone()), ("remote::openai-moderations", format!("{}/v1", first.url))] {
        let provider = format!("    - {{ id: guard, type: \"{kind}\", config: {{ url: \"{url}\" }} }}\n");
        let second = Running::start(&format!("version: 1\nname: second\nproviders:\n  safety:\n{provider}")).await;
        safety::all(of(&second), SUBJECT).await;
        second.stop().await;
    }
    first.stop().await;
}
