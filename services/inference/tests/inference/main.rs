//! The router and the remote providers, against real servers on the loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod chat;
mod failures;
mod grpc;
mod models;
mod pool;
mod router;
mod server;
mod stream;
mod tls;
mod vectors;

use std::sync::Arc;

use futures::StreamExt;
use serde_json::Value;

use llama_stack_core::{Context, Deps, EventStream, Inference, Registry, Result};

fn cx() -> Context {
    Context::test("tenant-a")
}

/// A provider as a manifest would have it, with the id `up`.
async fn provider(kind: &str, config: Value) -> Result<Arc<dyn Inference>> {
    let mut registry = Registry::default();
    llama_stack_inference::register(&mut registry);
    let deps = Deps { provider_id: "up".into(), ..Deps::new("unused") };
    registry.inference.build(kind, config, deps).await
}

async fn openai(config: Value) -> Arc<dyn Inference> {
    provider("remote::openai", config).await.unwrap()
}

async fn all<T>(mut events: EventStream<T>) -> (Vec<T>, Option<llama_stack_core::Error>) {
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => seen.push(event),
            Err(error) => {
                assert!(events.next().await.is_none(), "a stream goes on after its error");
                return (seen, Some(error));
            }
        }
    }
    (seen, None)
}
