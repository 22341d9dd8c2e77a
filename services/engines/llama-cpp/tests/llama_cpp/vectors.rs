//! Vectors of whole texts, by a model that was made for text and is asked for them all the same: what is shown here is that
//! each text gets its own, not how good they are.

use std::sync::Arc;

use llama_stack_core::{Code, Inference};
use llama_stack_proto::v1::{ChatRequest, EmbedInput, EmbedRequest, EmbedResponse, Truncation, embed_input::Input};
use llama_stack_tests::conformance::local::{SMOL, cx, on, smol_spec};
use serde_json::json;

async fn embedder() -> Arc<dyn Inference> {
    let mut spec = smol_spec();
    spec["context_length"] = json!(64);
    spec["options"] = json!({ "kind": "embedding", "pooling": "mean" });
    crate::SUBJECT.build(json!({ "models": [spec] })).await.unwrap()
}

fn request(texts: &[&str]) -> EmbedRequest {
    let input = |text: &&str| EmbedInput { input: Some(Input::Text((*text).into())) };
    EmbedRequest { model: SMOL.into(), inputs: texts.iter().map(input).collect(), ..EmbedRequest::default() }
}

async fn embed(inference: &Arc<dyn Inference>, texts: &[&str]) -> EmbedResponse {
    inference.embed(&cx(), request(texts)).await.unwrap()
}

fn likeness(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn each_text_has_a_vector_of_its_own_whatever_is_computed_with_it() {
    on(async {
        let embedder = embedder().await;
        let texts =
            ["a", "The river rose by seven feet.", "Bread is baked from flour and water, and salt.", "The river rose by seven feet."];
        let together = embed(&embedder, &texts).await;
        assert_eq!(together.embeddings.len(), 4);
        for (text, vector) in texts.iter().zip(&together.embeddings) {
            let alone = embed(&embedder, &[text]).await;
            assert!((likeness(&vector.values, &vector.values) - 1.0).abs() < 1e-4, "its length is not 1");
            assert!(likeness(&vector.values, &alone.embeddings[0].values) > 0.999, "{text:?}");
        }
        let [a, river, bread, again] = [0, 1, 2, 3].map(|n| &together.embeddings[n].values);
        assert!(likeness(river, again) > 0.999);
        assert!(likeness(river, bread) < 0.99 && likeness(a, bread) < 0.99);
        let tokens = async |text| embed(&embedder, &[text]).await.usage.unwrap().prompt_tokens;
        assert_eq!(together.usage.unwrap().prompt_tokens, tokens("a").await + 2 * tokens(texts[1]).await + tokens(texts[2]).await);
    });
}

#[test]
fn a_text_beyond_the_context_is_refused_or_cut_as_was_asked() {
    on(async {
        let embedder = embedder().await;
        let long = "one two three four ".repeat(40);
        let error = embedder.embed(&cx(), request(&["short", &long])).await.unwrap_err();
        assert_eq!((error.reason(), error.field()), (Some("context_length_exceeded"), Some("inputs[1]")), "{error:?}");
        let cut = EmbedRequest { truncation: Truncation::End.into(), ..request(&["short", &long]) };
        assert_eq!(embedder.embed(&cx(), cut).await.unwrap().truncated_inputs, 1);
        let error = embedder.embed(&cx(), request(&[])).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("inputs")));
        let error = embedder.chat(&cx(), ChatRequest::user(SMOL, "Hi.")).await.unwrap_err();
        assert_eq!(error.reason(), Some("wrong_model_kind"), "{error:?}");
    });
}
