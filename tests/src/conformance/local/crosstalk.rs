use futures::future::join_all;
use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams};
use std::{collections::HashMap, sync::Arc};

use super::*;

const CANARIES: [&str; 20] = [
    "kiwi", "lemon", "plum", "fig", "grape", "red", "blue", "green", "seven", "nine", "cat", "dog", "bird", "fish", "north", "south",
    "iron", "gold", "salt", "milk",
];

async fn answer(inference: &Arc<dyn Inference>, canary: &str) -> String {
    let request =
        CompleteRequest { sampling: Some(SamplingParams::greedy(3)), ..CompleteRequest::text(SMOL, format!("{canary} {canary} {canary}")) };
    inference.complete(&Context::test(canary), request).await.unwrap().choices[0].text.clone()
}

/// Two at once are answered as each is alone: mistral.rs by itself mixes their texts on the CPU.
pub async fn two_hundred_concurrent_pairs_answer_as_each_alone(subject: &Subject) {
    let smol = subject.smol().await;
    let mut alone = HashMap::new();
    for canary in CANARIES {
        alone.insert(canary, answer(&smol, canary).await);
    }
    let distinct: std::collections::HashSet<&String> = alone.values().collect();
    assert!(distinct.len() >= 10, "the canaries' answers are too alike to tell a mix: {alone:?}");
    for pair in 0..200 {
        let two = [CANARIES[pair % 20], CANARIES[(pair + 1 + pair / 20) % 20]];
        let answers = join_all(two.map(|canary| answer(&smol, canary))).await;
        assert_eq!(answers, two.map(|canary| alone[canary].clone()), "pair {pair}: {two:?}");
    }
}
