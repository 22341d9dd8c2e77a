//! Shields on models and servers whose answers a test decides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod llama_guard;
mod openai_moderations;
mod promises;

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Inference, Registry, Result, Safety};
use llama_stack_proto::v1::{Message, RunShieldRequest, RunShieldResponse, ShieldStage};
use serde_json::Value;

/// A provider as a manifest would have it, with the id `guard`.
async fn provider(kind: &str, config: Value, inference: Option<Arc<dyn Inference>>) -> Result<Arc<dyn Safety>> {
    let mut registry = Registry::default();
    llama_stack_safety::register(&mut registry);
    let deps = Deps { provider_id: "guard".into(), inference, ..Deps::new("unused") };
    registry.safety.build(kind, config, deps).await
}

/// A provider of models as a manifest would have it, behind the stack's router.
async fn inference(kind: &str, config: Value) -> Arc<dyn Inference> {
    let mut registry = Registry::default();
    llama_stack_inference::register(&mut registry);
    let deps = Deps { provider_id: "up".into(), ..Deps::new("unused") };
    routed(registry.inference.build(kind, config, deps).await.unwrap())
}

fn routed(inference: Arc<dyn Inference>) -> Arc<dyn Inference> {
    Arc::new(llama_stack_inference::Router::new(vec![("up".into(), inference)]))
}

async fn judge(safety: &Arc<dyn Safety>, messages: Vec<Message>) -> Result<RunShieldResponse> {
    let request = RunShieldRequest { shield_id: "guard".into(), messages, stage: ShieldStage::Input.into(), ..Default::default() };
    safety.run_shield(&Context::test("tenant-a"), request).await
}

async fn judged(safety: &Arc<dyn Safety>, text: &str) -> RunShieldResponse {
    judge(safety, vec![Message::user(text)]).await.unwrap()
}
