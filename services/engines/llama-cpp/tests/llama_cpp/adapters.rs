//! LoRA adapters: an answer is what it would be if the adapter had been added to the weights.

use std::{path::Path, sync::Arc};

use llama_stack_core::{Context, Deps, Inference, Registry};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams, TokenLogprob, Tokens, complete_request::Prompt};
use llama_stack_tests::conformance::local::{home, on};
use serde_json::{Value, json};

use crate::{
    answer,
    made::{drawn, llama},
    tokens,
};

const ID: &str = "tiny";

/// Prompts of bytes.
fn prompts(count: usize, length: usize) -> Vec<Vec<u32>> {
    let byte = |value: f32| ((value + 0.5) * 256.0) as u32 % 256;
    (0..count).map(|n| drawn(&format!("prompt {n}"), length, 1.0).into_iter().map(byte).collect()).collect()
}

fn spec(file: &Path, adapter: Option<(&Path, f32)>) -> Value {
    let adapters: Vec<Value> = adapter.iter().map(|(path, scale)| json!({ "path": path, "scale": scale })).collect();
    json!({ "id": ID, "path": file, "options": { "adapters": adapters, "drafts": false } })
}

async fn build(spec: Value) -> Arc<dyn Inference> {
    crate::SUBJECT.build(json!({ "models": [spec], "load": "eager" })).await.unwrap()
}

/// How far apart two answers are, in nats, up to where their tokens part.
fn apart(a: &[TokenLogprob], b: &[TokenLogprob]) -> f32 {
    let tops = |token: &TokenLogprob| token.top.iter().map(|top| (top.token_id, top.logprob)).collect::<Vec<_>>();
    let mut most = 0.0_f32;
    for (a, b) in a.iter().zip(b) {
        for (id, logprob) in tops(a) {
            // One that is among the likeliest here only is at least as unlikely there as the last of those.
            let other = tops(b).iter().find(|(other, _)| *other == id).map(|(_, logprob)| *logprob);
            most = most.max(other.map_or(0.0, |other| (other - logprob).abs()));
        }
        if a.token_id != b.token_id {
            break;
        }
    }
    most
}

#[test]
fn an_adapter_answers_as_its_weights_added_by_hand() {
    on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        llama::write(&file("base.gguf"), "tiny", None);
        llama::write_adapter(&file("style.gguf"), "style");
        let plain = build(spec(&file("base.gguf"), None)).await;
        for scale in [1.0, 0.5] {
            llama::write(&file("merged.gguf"), "tiny", Some(("style", scale)));
            let merged = build(spec(&file("merged.gguf"), None)).await;
            let adapted = build(spec(&file("base.gguf"), Some((&file("style.gguf"), scale)))).await;
            let mut effect = 0.0_f32;
            for prompt in prompts(6, 12) {
                let [with, by_hand, without] = [&adapted, &merged, &plain].map(|model| answer(model, ID, "a", &prompt, 6));
                let (with, by_hand, without) = (with.await, by_hand.await, without.await);
                assert!(apart(&with, &by_hand) < 0.02, "scale {scale}: {} nats apart", apart(&with, &by_hand));
                effect = effect.max(apart(&with, &without));
            }
            assert!(effect > 0.2, "scale {scale}: it changes next to nothing ({effect} nats): nothing is shown");
        }
    });
}

#[test]
fn one_adapter_is_taken_and_two_are_refused() {
    on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        llama::write(&file("base.gguf"), "tiny", None);
        llama::write_adapter(&file("style.gguf"), "style");
        let mut two = spec(&file("base.gguf"), Some((&file("style.gguf"), 1.0)));
        let again = two["options"]["adapters"][0].clone();
        two["options"]["adapters"].as_array_mut().unwrap().push(again);
        let error = crate::SUBJECT.build(json!({ "models": [two] })).await.err().unwrap();
        assert_eq!(error.field(), Some("options.adapters"), "{error:?}");
        // One for other weights.
        let other = json!({ "id": ID, "path": folder.path().join("style.gguf") });
        assert!(crate::SUBJECT.build(json!({ "models": [other], "load": "eager" })).await.is_err());
    });
}

async fn at(home: &Path, models: Vec<Value>) -> (Arc<dyn Inference>, Deps) {
    let mut registry = Registry::default();
    llama_stack_engine_llama_cpp::register(&mut registry);
    let deps = Deps::new(home);
    (registry.inference.build("inline::llama-cpp", json!({ "models": models, "load": "eager" }), deps.clone()).await.unwrap(), deps)
}

async fn ask(inference: &Arc<dyn Inference>, model: &str, prompt: &[u32]) -> (Vec<u32>, u32) {
    let request = CompleteRequest {
        model: model.into(),
        prompt: Some(Prompt::Tokens(Tokens { ids: prompt.to_vec() })),
        sampling: Some(SamplingParams::greedy(6)),
        logprobs: true,
        ..CompleteRequest::default()
    };
    let mut response = inference.complete(&Context::test("a"), request).await.unwrap();
    (tokens(&response.choices.remove(0).logprobs), response.usage.unwrap().cached_tokens)
}

/// What was read with one adapter is another text to a model with another: in memory, and on disk, even where the new
/// adapter's file has the old one's name.
#[test]
fn what_was_read_with_one_adapter_is_not_known_with_another() {
    on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        llama::write(&file("base.gguf"), "tiny", None);
        llama::write_adapter(&file("style.gguf"), "style");
        let kept = |id: &str, adapter| {
            let mut spec = spec(&file("base.gguf"), adapter);
            spec["id"] = json!(id);
            spec["options"]["keep_on_disk_megabytes"] = json!(16);
            spec
        };
        let style = file("style.gguf");
        let models = || vec![kept("plain", None), kept("styled", Some((style.as_path(), 1.0)))];
        let prompt = prompts(1, 64).remove(0);
        let home = home();
        let (inference, deps) = at(&home, models()).await;
        let (plain, cached) = ask(&inference, "plain", &prompt).await;
        assert_eq!(cached, 0);
        let (styled, cached) = ask(&inference, "styled", &prompt).await;
        assert_eq!(cached, 0, "the plain model's text");
        assert_eq!(ask(&inference, "styled", &prompt).await, (styled.clone(), 63));
        assert_ne!(plain, styled);
        let stop = async |deps: Deps| {
            deps.shutdown.cancel();
            deps.tasks.close();
            deps.tasks.wait().await;
        };
        stop(deps).await;
        drop(inference);

        let (inference, deps) = at(&home, models()).await;
        assert_eq!(ask(&inference, "styled", &prompt).await, (styled.clone(), 63), "it came back");
        stop(deps).await;
        drop(inference);

        llama::write_adapter(&file("style.gguf"), "another style");
        let (inference, deps) = at(&home, models()).await;
        let (other, cached) = ask(&inference, "styled", &prompt).await;
        assert_eq!(cached, 0, "the first adapter's text");
        assert_ne!(other, styled);
        stop(deps).await;
    });
}
