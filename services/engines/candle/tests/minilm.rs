//! Embeddings of the real all-MiniLM-L6-v2.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::time::Duration;

use llama_stack_core::{Code, Context};
use llama_stack_proto::v1::{
    ClassifyRequest, EmbedInput, EmbedRequest, GetModelRequest, ListModelsRequest, ModelKind, TokenizeRequest, Tokens, Truncation,
    embed_input,
};
use serde_json::{Value, json};
use support::{MINILM, cosine, embed, minilm, provider, recorded};

fn cx() -> Context {
    Context::test("a")
}

/// Texts, their tokens, and their vectors as the reference implementation computes them.
fn references() -> Vec<(String, usize, Vec<f32>)> {
    let read = |row: &Value| {
        let vector = row["vector"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
        (row["text"].as_str().unwrap().to_owned(), row["tokens"].as_u64().unwrap() as usize, vector)
    };
    recorded("minilm.json").iter().map(read).collect()
}

#[tokio::test]
async fn vectors_are_those_of_the_reference_alone_and_in_batches() {
    let inference = provider(json!({ "models": [minilm(json!({ "batch_tokens": 300 }))] })).await.unwrap();
    let references = references();
    assert!(references.len() >= 8);
    let texts: Vec<&str> = references.iter().map(|(text, ..)| text.as_str()).collect();
    let mut request = embed(&texts);
    request.set_truncation(Truncation::End);
    let together = inference.embed(&cx(), request).await.unwrap();
    assert_eq!(together.truncated_inputs, 1, "one text is longer than the model reads");
    let tokens: usize = references.iter().map(|(_, tokens, _)| (*tokens).min(256)).sum();
    assert_eq!(together.usage.unwrap().prompt_tokens as usize, tokens);

    for ((text, _, reference), embedding) in references.iter().zip(&together.embeddings) {
        let mut request = embed(&[text]);
        request.set_truncation(Truncation::End);
        let alone = inference.embed(&cx(), request).await.unwrap().embeddings.remove(0).values;
        assert!(cosine(&alone, reference) >= 0.9999, "{} {text}", cosine(&alone, reference));
        assert!(cosine(&alone, &embedding.values) >= 0.99999, "{} {text}", cosine(&alone, &embedding.values));
        let length = alone.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
}

#[tokio::test]
async fn a_text_that_is_too_long_is_refused_with_both_numbers() {
    let inference = provider(json!({ "models": [minilm(json!({}))] })).await.unwrap();
    let (long, tokens, _) = references().into_iter().max_by_key(|(_, tokens, _)| *tokens).unwrap();
    let error = inference.embed(&cx(), embed(&["short", &long])).await.unwrap_err();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::InvalidArgument, Some("context_length_exceeded"), Some("inputs[1]")));
    assert!(error.message().contains(&tokens.to_string()) && error.message().contains("256"), "{error}");
}

#[tokio::test]
async fn tokens_are_read_like_the_text_that_they_stand_for() {
    let inference = provider(json!({ "models": [minilm(json!({}))] })).await.unwrap();
    let text = "The cat sits on the mat.";
    let request = TokenizeRequest { model: MINILM.into(), text: text.into(), add_special_tokens: true, ..TokenizeRequest::default() };
    let read = inference.tokenize(&cx(), request.clone()).await.unwrap();
    assert_eq!((read.tokens.len(), read.context_length), (9, 256));
    let bare = inference.tokenize(&cx(), TokenizeRequest { add_special_tokens: false, ..request }).await.unwrap();
    assert_eq!(bare.tokens, read.tokens[1..8]);

    let given =
        |ids: Vec<u32>| EmbedRequest { inputs: vec![EmbedInput { input: Some(embed_input::Input::Tokens(Tokens { ids })) }], ..embed(&[]) };
    let by_tokens = inference.embed(&cx(), given(read.tokens)).await.unwrap();
    let by_text = inference.embed(&cx(), embed(&[text])).await.unwrap();
    assert_eq!(by_tokens, by_text);
    for ids in [vec![], vec![101, 999_999, 102]] {
        let error = inference.embed(&cx(), given(ids)).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("inputs[0].tokens")));
    }
}

#[tokio::test]
async fn what_cannot_be_computed_is_refused_by_name() {
    let inference = provider(json!({ "models": [minilm(json!({}))] })).await.unwrap();
    let refused = async |request: EmbedRequest| {
        let error = inference.embed(&cx(), request).await.unwrap_err();
        (error.code(), error.field().unwrap_or_default().to_owned(), error.message().to_owned())
    };
    let (code, field, _) = refused(embed(&["fine", ""])).await;
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "inputs[1].text"));
    let (code, field, _) = refused(embed(&[])).await;
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "inputs"));
    let (code, field, message) = refused(EmbedRequest { dimensions: 128, ..embed(&["fine"]) }).await;
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "dimensions"));
    assert!(message.contains("128") && message.contains("384"), "{message}");
    let (code, _, message) = refused(EmbedRequest { model: "minilm".into(), ..embed(&["fine"]) }).await;
    assert_eq!(code, Code::NotFound);
    assert!(message.contains(MINILM), "{message}");
    let error = inference.classify(&cx(), ClassifyRequest { model: MINILM.into(), ..ClassifyRequest::default() }).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some("wrong_model_kind")));
    assert_eq!(inference.embed(&cx(), EmbedRequest { dimensions: 384, ..embed(&["fine"]) }).await.unwrap().embeddings[0].values.len(), 384);
}

#[tokio::test]
async fn a_model_that_shortens_gives_unit_vectors_of_the_length_asked_for() {
    let inference = provider(json!({ "models": [minilm(json!({ "shortens": true }))] })).await.unwrap();
    let whole = inference.embed(&cx(), embed(&["fine"])).await.unwrap().embeddings.remove(0).values;
    let short = inference.embed(&cx(), EmbedRequest { dimensions: 64, ..embed(&["fine"]) }).await.unwrap().embeddings.remove(0).values;
    assert!(cosine(&whole[..64], &short) > 0.999_999);
    assert!((short.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(inference.embed(&cx(), EmbedRequest { dimensions: 385, ..embed(&["fine"]) }).await.is_err());
}

#[tokio::test]
async fn the_model_tells_its_dimension_and_length() {
    let inference = provider(json!({ "models": [minilm(json!({ "max_tokens": 128 }))] })).await.unwrap();
    let model = inference.get_model(&cx(), GetModelRequest { id: MINILM.into() }).await.unwrap();
    assert_eq!((model.kind(), model.embedding_dimension, model.context_length), (ModelKind::Embedding, 384, 128));
    assert_eq!(model.provider_id, "local");
    let mut chat = ListModelsRequest::default();
    chat.set_kind(ModelKind::Chat);
    assert!(inference.list_models(&cx(), chat).await.unwrap().models.is_empty());
}

#[tokio::test]
async fn a_dropped_or_late_request_frees_the_engine_for_the_next() {
    let config = json!({ "models": [minilm(json!({ "batch_tokens": 256 }))], "threads": 1, "concurrent": 1, "queue": 1 });
    let inference = provider(config).await.unwrap();
    // Minutes of work, were it done.
    let passage = "a long passage about rivers and the people who live beside them ".repeat(18);
    let many: Vec<&str> = vec![passage.as_str(); 2_048];

    let hurried = cx().with_timeout(Duration::from_millis(100));
    assert_eq!(inference.embed(&hurried, embed(&many)).await.unwrap_err().code(), Code::DeadlineExceeded);
    let dropped = tokio::time::timeout(Duration::from_millis(100), inference.embed(&cx(), embed(&many))).await;
    assert!(dropped.is_err(), "it ended before it was dropped");
    let next = tokio::time::timeout(Duration::from_secs(30), inference.embed(&cx(), embed(&["next"]))).await;
    assert!(next.expect("the engine was not freed").is_ok());
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_time_to_come_back() {
    let config = json!({ "models": [minilm(json!({ "batch_tokens": 256 }))], "threads": 1, "concurrent": 1, "queue": 0 });
    let inference = provider(config).await.unwrap();
    let passage = "a long passage about rivers and the people who live beside them ".repeat(18);
    let many: Vec<&str> = vec![passage.as_str(); 2_048];
    let (busy, refused) = (cx(), cx());
    let mut long = Box::pin(inference.embed(&busy, embed(&many)));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut long).await.is_err(), "the long request ended early");
    let error = inference.embed(&refused, embed(&["one more"])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.retry_after().is_some());
}
