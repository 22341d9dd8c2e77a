//! `inline::sqlite`: every promise of `Memory`, in process and over a socket; and what is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod banks;

use std::sync::Arc;

use banks::Stand;
use llama_stack_core::Memory;
use llama_stack_tests::{conformance::memory, served};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise() {
    let stand = Stand::new().await;
    memory::all(stand.memory.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise_behind_the_router_and_over_a_socket() {
    let stand = Stand::new().await;
    let router: Arc<dyn Memory> = Arc::new(llama_stack_memory::Router::new(vec![("sqlite".into(), stand.memory.clone())]));
    let served = served::memory(router).await;
    memory::all(served.client.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_searches_find_nothing_foreign() {
    let stand = Stand::new().await;
    memory::isolation::nothing_foreign_is_found(stand.memory.clone(), 10_000).await;
}
