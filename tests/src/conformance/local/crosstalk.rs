use futures::future::join_all;
use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams, TokenLogprob};
use std::{collections::HashMap, sync::Arc};

use super::*;

const CANARIES: [&str; 20] = [
    "kiwi", "lemon", "plum", "fig", "grape", "red", "blue", "green", "seven", "nine", "cat", "dog", "bird", "fish", "north", "south",
    "iron", "gold", "salt", "milk",
];

async fn answer(inference: &Arc<dyn Inference>, canary: &str) -> Vec<TokenLogprob> {
    let sampling = Some(SamplingParams::greedy(3));
    let text = format!("{canary} {canary} {canary}");
    let request = CompleteRequest { sampling, logprobs: true, top_logprobs: 20, ..CompleteRequest::text(SMOL, text) };
    inference.complete(&Context::test(canary), request).await.unwrap().choices.remove(0).logprobs
}

fn tokens(answer: &[TokenLogprob]) -> Vec<u32> {
    answer.iter().map(|token| token.token_id).collect()
}

/// Two at once are answered as each is alone: mistral.rs by itself mixes their texts on the CPU.
pub async fn two_hundred_concurrent_pairs_answer_as_each_alone(subject: &Subject) {
    let (single, busy) = (subject.smol().await, subject.busy().await);
    let mut alone = HashMap::new();
    for canary in CANARIES {
        alone.insert(canary, answer(&single, canary).await);
    }
    let distinct: std::collections::HashSet<Vec<u32>> = alone.values().map(|answer| tokens(answer)).collect();
    assert!(distinct.len() >= 10, "the canaries' answers are too alike to tell a mix: {distinct:?}");
    for pair in 0..200 {
        let two = [CANARIES[pair % 20], CANARIES[(pair + 1 + pair / 20) % 20]];
        let answers = join_all(two.map(|canary| answer(&busy, canary))).await;
        for (canary, answer) in two.iter().zip(&answers) {
            subject.are_the_same(answer, &alone[canary]);
        }
    }
}
