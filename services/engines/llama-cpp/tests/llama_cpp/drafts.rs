//! Guesses change the speed, never the answer.

use llama_stack_proto::v1::{ChatRequest, CompleteRequest, SamplingParams};
use llama_stack_tests::conformance::local::{QWEN, SMOL, complete, cx, on};
use serde_json::json;

use crate::{EXACT, qwen_with, smol_with};

#[test]
fn text_that_repeats_its_prompt_is_the_same_with_guesses() {
    on(async {
        let plain = qwen_with(json!({ "drafts": false, "batch": EXACT })).await;
        let guessing = qwen_with(json!({ "batch": EXACT })).await;
        for text in [
            "Repeat exactly, and nothing else: {\"order\": 12345, \"items\": [\"red lamp\", \"blue lamp\"], \"city\": \"Zürich\"}",
            "Write this list twice: alpha, beta, gamma, delta.",
        ] {
            let request = || ChatRequest::user(QWEN, text).greedy(40);
            let without = plain.chat(&cx(), request()).await.unwrap();
            let with = guessing.chat(&cx(), request()).await.unwrap();
            assert_eq!(without.choices, with.choices);
            assert_eq!(without.usage.unwrap().completion_tokens, with.usage.unwrap().completion_tokens);
        }
    });
}

#[test]
fn drawn_answers_are_the_same_with_guesses() {
    on(async {
        let plain = smol_with(json!({ "drafts": false, "batch": EXACT })).await;
        let guessing = smol_with(json!({ "batch": EXACT })).await;
        for seed in 0..6 {
            let sampling = SamplingParams { temperature: Some(0.7), seed: Some(seed), max_tokens: Some(24), ..SamplingParams::default() };
            let request = || CompleteRequest {
                sampling: Some(sampling.clone()),
                ..CompleteRequest::text(SMOL, "one two three one two three one two")
            };
            assert_eq!(complete(&plain, request()).await.choices, complete(&guessing, request()).await.choices, "seed {seed}");
        }
    });
}
