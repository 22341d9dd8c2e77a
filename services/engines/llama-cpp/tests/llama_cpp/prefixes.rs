//! What was read once is not read again, changes no answer, and is nobody else's.

use std::sync::Arc;

use futures::future::join_all;
use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{ChatRequest, CompleteRequest, GetModelRequest, Message, SamplingParams, TokenizeRequest};
use llama_stack_tests::conformance::local::{SMOL, cx, on};
use serde_json::json;

use crate::{EXACT, answer, are_the_same, smol_with, tokens};

const WORDS: [&str; 16] =
    ["river", "stone", "seven", "under", "because", "green", "walks", "city", "not", "always", "small", "a", "the", "of", "and", "said"];

/// Words that follow from a number.
fn words(seed: usize, count: usize) -> String {
    (0..count).map(|n| WORDS[(seed * 7 + n * n * 3 + n * seed) % WORDS.len()]).collect::<Vec<_>>().join(" ")
}

async fn read(inference: &Arc<dyn Inference>, text: &str) -> Vec<u32> {
    let request = TokenizeRequest { model: SMOL.into(), text: text.into(), ..TokenizeRequest::default() };
    inference.tokenize(&cx(), request).await.unwrap().tokens
}

/// Sessions that begin alike, grow, and branch: 200 answers from a warm cache, the same 200 from none.
#[test]
fn two_hundred_answers_are_the_same_with_and_without_a_cache() {
    on(async {
        let warm = smol_with(json!({ "batch": EXACT })).await;
        let cold = smol_with(json!({ "prefix_reuse": false, "drafts": false, "batch": EXACT })).await;
        let system = read(&warm, &words(1, 12)).await;
        for session in 0..50 {
            let mut history = system.clone();
            for turn in 0..4 {
                history.extend(read(&warm, &words(session + turn * 50, 5)).await);
                let said = answer(&warm, SMOL, "warm", &history, 4).await;
                let alone = answer(&cold, SMOL, "cold", &history, 4).await;
                assert_eq!(tokens(&said), tokens(&alone), "session {session}, turn {turn}");
                history.extend(tokens(&said));
            }
        }
        let cached = async |inference: &Arc<dyn Inference>| {
            let model = inference.get_model(&cx(), GetModelRequest { id: SMOL.into() }).await.unwrap();
            let number = |key: &str| model.metadata[key].parse::<f64>().unwrap();
            number("cached_tokens") / number("prompt_tokens")
        };
        assert!(cached(&warm).await > 0.6, "hardly anything was found again: {}", cached(&warm).await);
        assert_eq!(cached(&cold).await, 0.0);
    });
}

#[test]
fn a_conversation_that_goes_on_reads_only_what_is_new() {
    on(async {
        let smol = smol_with(json!({})).await;
        let mut messages = vec![Message::system(words(3, 60)), Message::user(words(4, 20))];
        let ask = |messages: &[Message]| ChatRequest::new(SMOL, messages.to_vec()).greedy(8);
        let cx = Context::test("conversation");
        let first = smol.chat(&cx, ask(&messages)).await.unwrap();
        assert_eq!(first.usage.unwrap().cached_tokens, 0);
        messages.push(first.choices[0].message.clone().unwrap());
        messages.push(Message::user(words(5, 10)));
        let usage = smol.chat(&cx, ask(&messages)).await.unwrap().usage.unwrap();
        assert!(usage.cached_tokens >= first.usage.unwrap().prompt_tokens - 4, "{usage:?} after {:?}", first.usage);
        assert!(usage.cached_tokens < usage.prompt_tokens);
    });
}

#[test]
fn nothing_is_known_of_another_tenant() {
    on(async {
        let smol = smol_with(json!({})).await;
        let request = || CompleteRequest { sampling: Some(SamplingParams::greedy(2)), ..CompleteRequest::text(SMOL, words(9, 80)) };
        let ask = async |tenant: &str| smol.complete(&Context::test(tenant), request()).await.unwrap().usage.unwrap().cached_tokens;
        assert_eq!(ask("prefix-a").await, 0);
        assert!(ask("prefix-a").await > 60);
        assert_eq!(ask("prefix-b").await, 0);
        assert!(ask("prefix-b").await > 60);
    });
}

/// The cells of a cache that is too small for all go to whoever needs them, and every answer is whole.
#[test]
fn a_small_cache_serves_many() {
    on(async {
        let mut spec = llama_stack_tests::conformance::local::smol_spec();
        spec["context_length"] = json!(256);
        spec["options"] = json!({ "cache_tokens": 256, "parallel": 6 });
        let small = crate::SUBJECT.build(json!({ "models": [spec], "queue": 64 })).await.unwrap();
        let large = crate::SUBJECT.smol().await;
        let mut prompts = Vec::new();
        for n in 0..12 {
            prompts.push(read(&large, &words(100 + n, 40)).await);
        }
        let together = join_all(prompts.iter().map(|prompt| answer(&small, SMOL, "small", prompt, 24))).await;
        for (prompt, said) in prompts.iter().zip(together) {
            assert_eq!(said.len(), 24);
            are_the_same(&said, &answer(&large, SMOL, "large", prompt, 24).await);
        }
    });
}
