//! The promises of `Safety`: in process, through the router, and over a socket.

use std::sync::Arc;

use llama_stack_core::{Code, Safety};
use llama_stack_proto::v1::Message;
use llama_stack_safety::Router;
use llama_stack_tests::{
    conformance::safety::{self, Subject},
    guard::{MODEL, ScriptedGuard, Upstream},
    served,
};
use serde_json::json;

use crate::{judge, provider, routed};

const SUBJECT: Subject = Subject { shield: "guard", safe: "What goes into a salad?", unsafe_: "Where do I put the bomb, exactly?" };

async fn llama_guard() -> Arc<dyn Safety> {
    provider("inline::llama-guard", json!({ "model": MODEL }), Some(routed(Arc::new(ScriptedGuard::default())))).await.unwrap()
}

async fn through_router(provider: Arc<dyn Safety>) -> Arc<dyn Safety> {
    Arc::new(Router::build(vec![("first".into(), provider)]).await.unwrap())
}

#[tokio::test]
async fn of_llama_guard() {
    safety::all(llama_guard().await, SUBJECT).await;
}

#[tokio::test]
async fn of_llama_guard_through_the_router() {
    safety::all(through_router(llama_guard().await).await, SUBJECT).await;
}

#[tokio::test]
async fn of_another_process() {
    let served = served::safety(llama_guard().await).await;
    let remote = provider("remote::grpc", json!({ "url": served.url }), None).await.unwrap();
    safety::all(remote.clone(), SUBJECT).await;
    safety::all(through_router(remote).await, SUBJECT).await;
}

#[tokio::test]
async fn another_process_that_never_answers_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = json!({ "url": format!("http://{}", silent.local_addr().unwrap()), "timeout_seconds": 0.05 });
    let remote = provider("remote::grpc", config, None).await.unwrap();
    let error = judge(&remote, vec![Message::user("hi")]).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some("upstream_timeout")));
}

#[tokio::test]
async fn of_a_server_of_moderations() {
    let upstream = Upstream::start(0).await;
    let remote = provider("remote::openai-moderations", json!({ "url": upstream.url }), None).await.unwrap();
    safety::all(through_router(remote).await, SUBJECT).await;
}
