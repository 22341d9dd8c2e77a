//! A call through the router and the trait, beside the same call on the provider itself.

use std::{hint::black_box, sync::Arc, time::Instant};

use async_trait::async_trait;
use llama_stack_core::{Context, Inference, Result};
use llama_stack_proto::v1::{
    ChatChoice, ChatRequest, ChatResponse, FinishReason, ListModelsRequest, ListModelsResponse, Message, Model, ModelKind,
};

use crate::{Verdict, figures::median};

struct Instantly;

#[async_trait]
impl Inference for Instantly {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = Model { id: "instant".into(), kind: ModelKind::Chat.into(), ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn chat(&self, _: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let message = Some(Message::assistant("Hello"));
        let choices = vec![ChatChoice { message, finish_reason: FinishReason::Stop.into(), logprobs: Vec::new() }];
        Ok(ChatResponse { model: request.model, choices, usage: None })
    }
}

pub(crate) async fn run(long: bool) -> Verdict {
    let bare: Arc<dyn Inference> = Arc::new(Instantly);
    let routed: Arc<dyn Inference> = Arc::new(llama_stack_inference::Router::new(vec![("instant".into(), bare.clone())]));
    let rounds = if long { 200 } else { 40 };
    for service in [&bare, &routed] {
        batch(service, 20_000).await;
    }
    // In turn, so that a drifting machine touches both alike; the medians of the batches are compared.
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        direct.push(batch(&bare, 5_000).await);
        through.push(batch(&routed, 5_000).await);
    }
    let (direct, through) = (median(direct), median(through));
    println!("{:<24} {:>10}\n{:<24} {direct:>10.3}\n{:<24} {through:>10.3}", "call", "us", "provider itself", "through the router");
    Verdict { line: format!("call: {through:.2} us, bare {direct:.2} us, ratio {:.2}", through / direct), holds: through <= 2.0 }
}

/// Microseconds per call.
async fn batch(service: &Arc<dyn Inference>, calls: u32) -> f64 {
    let cx = Context::default();
    let begun = Instant::now();
    for _ in 0..calls {
        let request = ChatRequest::user("instant", "Say hello.");
        black_box(service.chat(&cx, request).await.unwrap());
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}
