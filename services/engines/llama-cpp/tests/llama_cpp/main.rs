//! The provider on real weights: what a caller would notice. The promises of all engines, and what is this one's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod adapters;
mod batches;
mod drafts;
mod encoders;
mod life;
mod llama31;
mod made;
mod prefixes;
mod second;
mod vectors;

use std::sync::Arc;

use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams, TokenLogprob, Tokens, complete_request::Prompt};
use llama_stack_tests::conformance::local::{Subject, qwen_spec, smol_spec};
use serde_json::{Value, json};

static SUBJECT: Subject = Subject::new("inline::llama-cpp", "llama.cpp", llama_stack_engine_llama_cpp::register, ALONE).rounding(TIE);

const ALONE: &str = r#"{ "parallel": 1, "prefix_reuse": false, "drafts": false, "batch": 32 }"#;

llama_stack_tests::local_promises!(crate::SUBJECT);

/// The small model in an engine of its own.
async fn smol_with(options: Value) -> Arc<dyn Inference> {
    with(smol_spec(), options).await
}

async fn qwen_with(options: Value) -> Arc<dyn Inference> {
    with(qwen_spec(), options).await
}

async fn with(mut spec: Value, options: Value) -> Arc<dyn Inference> {
    spec["options"] = options;
    spec["context_length"] = json!(4_096);
    SUBJECT.build(json!({ "models": [spec], "queue": 512 })).await.unwrap()
}

/// A greedy answer to a prompt of tokens, with what was nearly chosen.
async fn answer(inference: &Arc<dyn Inference>, model: &str, tenant: &str, prompt: &[u32], max_tokens: u32) -> Vec<TokenLogprob> {
    let request = CompleteRequest {
        model: model.into(),
        prompt: Some(Prompt::Tokens(Tokens { ids: prompt.to_vec() })),
        sampling: Some(SamplingParams::greedy(max_tokens)),
        logprobs: true,
        top_logprobs: 4,
        ..CompleteRequest::default()
    };
    inference.complete(&Context::test(tenant), request).await.unwrap().choices.remove(0).logprobs
}

/// Nats. llama.cpp rounds differently for one token and for several, and for another order of cells, so that a tie may fall
/// to the other side: logits of one prompt differ by up to 0.6, read token by token or in pieces, without any of our code.
const TIE: f32 = 1.0;

/// Steps of this size round alike where one sequence is read after the other.
const EXACT: u32 = 32;

fn tokens(answer: &[TokenLogprob]) -> Vec<u32> {
    answer.iter().map(|token| token.token_id).collect()
}

fn are_the_same(a: &[TokenLogprob], b: &[TokenLogprob]) -> bool {
    SUBJECT.are_the_same(a, b)
}
