//! The promises of `Agents`: the runtime over a store in a file, with the scripted model and the calculator.

use std::sync::Arc;

use llama_stack_agents::{Runtime, RuntimeParts};
use llama_stack_core::{Agents, grpc::Remote, manifest};
use llama_stack_proto::v1::agents_client::AgentsClient;
use llama_stack_store::{Durability, Store};
use llama_stack_tests::{conformance, scripted::Scripted, served};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;

use super::tools::builtin;
use crate::running::{Running, SCRIPTED};

async fn runtime(home: &TempDir) -> Arc<dyn Agents> {
    let url = format!("sqlite://{}", home.path().join("state.db").display());
    Runtime::new(RuntimeParts {
        store: Store::open(&url, Durability::Process).await.unwrap(),
        inference: Arc::new(Scripted::default()),
        tools: Some(builtin().await),
        safety: None,
        memory: None,
        connect: None,
        policy: None,
        config: manifest::Agents::default(),
        shielding: llama_stack_core::manifest::Safety::default(),
        tasks: TaskTracker::new(),
        shutdown: CancellationToken::new(),
    })
    .unwrap()
}

#[tokio::test]
async fn in_process() {
    let home = tempfile::tempdir().unwrap();
    conformance::agents::all(runtime(&home).await).await;
}

#[tokio::test]
async fn over_a_socket() {
    let home = tempfile::tempdir().unwrap();
    let served = served::agents(runtime(&home).await).await;
    conformance::agents::all(served.client.clone()).await;
}

#[tokio::test]
async fn through_a_stack() {
    let stack = Running::start(SCRIPTED).await;
    let client: Arc<dyn Agents> = Arc::new(Remote::<AgentsClient<Channel>>::new(stack.channel()));
    conformance::agents::all(client).await;
    stack.stop().await;
}
