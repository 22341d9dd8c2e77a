//! A second model guesses: the answer is what it would have been, and whether guessing pays can be seen.

use std::{path::Path, sync::Arc};

use llama_stack_core::{Code, Error, Inference};
use llama_stack_proto::v1::{CompleteRequest, GetModelRequest, SamplingParams, TokenizeRequest};
use llama_stack_tests::conformance::local::{SMOL, cx, on, smol_spec};
use serde_json::{Value, json};

use crate::{
    EXACT, answer, are_the_same,
    made::{drawn, llama},
};

const ID: &str = "tiny";

fn prompts(count: usize) -> Vec<Vec<u32>> {
    let byte = |value: f32| ((value + 0.5) * 256.0) as u32 % 256;
    (0..count).map(|n| drawn(&format!("prompt {n}"), 4 + n % 40, 1.0).into_iter().map(byte).collect()).collect()
}

/// The model, and the one that guesses for it.
fn pair(model: &Path, second: &Path, draft: Value) -> Value {
    json!({ "load": "eager", "models": [
        { "id": ID, "path": model, "options": { "batch": EXACT, "drafts": false, "draft": draft } },
        { "id": "second", "path": second, "options": {} },
    ] })
}

async fn alone(model: &Path) -> Arc<dyn Inference> {
    let spec = json!({ "id": ID, "path": model, "options": { "batch": EXACT, "drafts": false } });
    crate::SUBJECT.build(json!({ "models": [spec] })).await.unwrap()
}

/// Guesses, and how many of them were right.
async fn guesses(inference: &Arc<dyn Inference>, model: &str) -> (f64, f64) {
    let model = inference.get_model(&cx(), GetModelRequest { id: model.into() }).await.unwrap();
    let number = |key: &str| model.metadata[key].parse::<f64>().unwrap();
    (number("draft_tokens"), number("draft_accepted_tokens"))
}

#[test]
fn sixty_answers_are_the_same_with_a_second_model_that_is_mostly_right_and_with_one_that_is_wrong() {
    on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        llama::write(&file("model.gguf"), "tiny", None);
        llama::write(&file("alike.gguf"), "tiny", None);
        llama::write(&file("unlike.gguf"), "something else", None);
        let plain = alone(&file("model.gguf")).await;
        let guided =
            |second: &str| crate::SUBJECT.build(pair(&file("model.gguf"), &file(second), json!({ "model": "second", "tokens": 4 })));
        let (alike, unlike) = (guided("alike.gguf").await.unwrap(), guided("unlike.gguf").await.unwrap());
        let (mut differ, mut made) = (0, 0.0);
        for (n, prompt) in prompts(60).iter().enumerate() {
            let tenant = ["a", "b", "c"][n % 3];
            let said = answer(&plain, ID, tenant, prompt, 24).await;
            made += said.len() as f64;
            for guided in [&alike, &unlike] {
                differ += usize::from(!are_the_same(&answer(guided, ID, tenant, prompt, 24).await, &said));
            }
        }
        assert!(differ <= 4, "{differ} of 120 differ");
        let (guessed, right) = guesses(&alike, ID).await;
        assert!(guessed > made * 0.2 && right / guessed > 0.9, "{guessed} guessed, {right} right, of {made}");
        // Where it is wrong, or doubts, it is soon asked no more.
        let (guessed, right) = guesses(&unlike, ID).await;
        assert!(right < made * 0.1 && guessed < made * 0.8, "{guessed} guessed, {right} right, of {made}");
        assert_eq!(guesses(&plain, ID).await, (0.0, 0.0));
    });
}

#[test]
fn real_text_is_the_same_with_a_second_model_and_mostly_guessed() {
    on(async {
        let mut model = smol_spec();
        model["context_length"] = json!(512);
        let mut second = model.clone();
        second["id"] = json!("second");
        model["options"] = json!({ "batch": EXACT, "drafts": false });
        let plain = crate::SUBJECT.build(json!({ "models": [model] })).await.unwrap();
        model["options"]["draft"] = json!({ "model": "second" });
        let guided = crate::SUBJECT.build(json!({ "models": [model, second] })).await.unwrap();
        let mut made = 0.0;
        for text in
            ["The river rose by", "To bake bread, you need", "One, two, three,", "The capital of France is", "Once upon a time, there was"]
        {
            let request = TokenizeRequest { model: SMOL.into(), text: text.into(), ..TokenizeRequest::default() };
            let prompt = plain.tokenize(&cx(), request).await.unwrap().tokens;
            let (said, with) = (answer(&plain, SMOL, "a", &prompt, 16).await, answer(&guided, SMOL, "a", &prompt, 16).await);
            are_the_same(&with, &said);
            made += said.len() as f64;
        }
        let (guessed, right) = guesses(&guided, SMOL).await;
        assert!(right > made * 0.2 && right / guessed > 0.6, "{guessed} guessed, {right} right, of {made}");
        // Drawn answers are chosen by the same numbers of the same generator.
        let sampling = SamplingParams { temperature: Some(0.8), seed: Some(7), max_tokens: Some(16), ..SamplingParams::default() };
        let request = || CompleteRequest { sampling: Some(sampling.clone()), ..CompleteRequest::text(SMOL, "Once upon a time") };
        let choices = async |inference: &Arc<dyn Inference>| inference.complete(&cx(), request()).await.unwrap().choices;
        assert_eq!(choices(&plain).await, choices(&guided).await);
    });
}

#[test]
fn a_second_model_that_cannot_guess_is_refused_by_name() {
    on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        llama::write(&file("model.gguf"), "tiny", None);
        llama::write_with(&file("odd.gguf"), "tiny", None, "<|even|>");
        let refused = async |second: &str, draft: Value| -> Error {
            crate::SUBJECT.build(pair(&file("model.gguf"), &file(second), draft)).await.err().unwrap()
        };
        let named = json!({ "model": "second" });
        // Its tokens are compared when both are loaded.
        let other = refused("odd.gguf", named.clone()).await;
        assert_eq!(other.reason(), Some("model_unusable"), "{other:?}");
        assert!(other.message().contains("token 259") && other.message().contains("second"), "{}", other.message());
        for (draft, field, said) in [
            (json!({ "model": "third" }), "options.draft.model", "second"),
            (json!({ "model": ID }), "options.draft.model", "second"),
            (json!({ "model": "second", "tokens": 0 }), "options.draft.tokens", "1 to 16"),
            (json!({ "model": "second", "tokens": 17 }), "options.draft.tokens", "1 to 16"),
        ] {
            let error = refused("model.gguf", draft).await;
            assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{error:?}");
            assert!(error.message().contains(said), "{}", error.message());
        }
        // Another kind of tokenizer is seen in the header.
        let mut smol = smol_spec();
        smol["options"] = json!({ "draft": named });
        let tiny = json!({ "id": "second", "path": file("model.gguf") });
        let error = crate::SUBJECT.build(json!({ "models": [smol, tiny], "load": "lazy" })).await.err().unwrap();
        assert_eq!(error.field(), Some("options.draft.model"), "{error:?}");
    });
}
