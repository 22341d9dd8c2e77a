//! Answers that are made together are what they are alone, as far as the kernels' rounding allows; that no cell, position
//! or token is ever another's is shown without rounding by the property tests of `models::batching`.

use std::sync::Arc;

use futures::future::join_all;
use llama_stack_core::Inference;
use llama_stack_proto::v1::TokenizeRequest;
use llama_stack_tests::conformance::local::{QWEN, SMOL, cx, on};
use serde_json::json;

use crate::{answer, are_the_same, qwen_with, smol_with};

const TENANTS: [&str; 3] = ["a", "b", "c"];
const SUBJECTS: [&str; 10] = ["a ship", "the sea", "two cats", "bread", "winter", "a king", "trains", "the moon", "music", "an old house"];

async fn prompts(inference: &Arc<dyn Inference>, model: &str, count: usize) -> Vec<Vec<u32>> {
    let mut prompts = Vec::new();
    for n in 0..count {
        let text = format!("{} words about {}{}:", n % 7 + 3, SUBJECTS[n % 10], " and more".repeat(n % 5));
        let request = TokenizeRequest { model: model.into(), text, ..TokenizeRequest::default() };
        prompts.push(inference.tokenize(&cx(), request).await.unwrap().tokens);
    }
    prompts
}

/// How many of the answers differ when they are made eight at a time, of different lengths and lengths of prompts. That each
/// that does differs by a tie is asserted here; how often one comes up depends on who happened to be in a batch.
async fn differing(alone: &Arc<dyn Inference>, together: &Arc<dyn Inference>, model: &str, count: usize) -> usize {
    let prompts = prompts(alone, model, count).await;
    let all: Vec<(usize, &Vec<u32>)> = prompts.iter().enumerate().collect();
    let mut differ = 0;
    for group in all.chunks(8) {
        let tell = |n: usize, prompt| answer(together, model, TENANTS[n % 3], prompt, 4 + (n % 9) as u32);
        let batch = join_all(group.iter().map(|(n, prompt)| tell(*n, prompt))).await;
        for ((n, prompt), said) in group.iter().zip(batch) {
            let single = answer(alone, model, "alone", prompt, 4 + (n % 9) as u32).await;
            differ += usize::from(!are_the_same(&said, &single));
        }
    }
    differ
}

#[test]
fn two_hundred_greedy_answers_in_a_batch_are_those_alone_but_for_ties() {
    on(async {
        let alone = smol_with(json!({ "parallel": 1, "prefix_reuse": false, "drafts": false })).await;
        let differ = differing(&alone, &smol_with(json!({})).await, SMOL, 200).await;
        assert!(differ <= 60, "{differ} of 200 differ");
    });
}

#[test]
fn a_model_with_k_quants_answers_a_batch_as_alone_but_for_ties() {
    on(async {
        let alone = qwen_with(json!({ "parallel": 1, "prefix_reuse": false, "drafts": false })).await;
        let differ = differing(&alone, &qwen_with(json!({})).await, QWEN, 24).await;
        assert!(differ <= 12, "{differ} of 24 differ");
    });
}
