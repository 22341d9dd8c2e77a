//! Reranking with a tiny BERT cross-encoder in the published layout, against `transformers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use llama_stack_core::{Code, Context};
use llama_stack_proto::v1::{GetModelRequest, ModelKind, RerankRequest};
use serde_json::json;
use support::{provider, recorded};

#[tokio::test]
async fn documents_are_ranked_by_the_scores_of_the_reference() {
    let recorded = recorded("rerank.json").remove(0);
    let folder = tempfile::tempdir().unwrap();
    support::drawn::write(folder.path(), &recorded);
    let inference = provider(json!({ "models": [{ "id": "ranker", "path": folder.path() }] })).await.unwrap();
    let cx = Context::test("a");
    let model = inference.get_model(&cx, GetModelRequest { id: "ranker".into() }).await.unwrap();
    assert_eq!((model.kind(), model.context_length), (ModelKind::Reranker, 64));

    let documents: Vec<String> = serde_json::from_value(recorded["documents"].clone()).unwrap();
    let logits: Vec<f32> = serde_json::from_value(recorded["logits"].clone()).unwrap();
    let query = recorded["query"].as_str().unwrap();
    let request =
        |query: &str, documents: Vec<String>, top_n| RerankRequest { model: "ranker".into(), query: query.into(), documents, top_n };
    let ranked = inference.rerank(&cx, request(query, documents.clone(), 0)).await.unwrap();
    assert_eq!(ranked.results.len(), documents.len());
    assert!(ranked.results.windows(2).all(|pair| pair[0].score >= pair[1].score));
    for result in &ranked.results {
        let reference = 1.0 / (1.0 + (-logits[result.index as usize]).exp());
        assert!((result.score - reference).abs() < 1e-4, "{result:?} {reference}");
    }
    let best = inference.rerank(&cx, request(query, documents, 1)).await.unwrap();
    assert_eq!(best.results, ranked.results[..1]);

    // Too long for the model: cut, and ranked all the same.
    let long = inference.rerank(&cx, request(query, vec!["the day ".repeat(100)], 0)).await.unwrap();
    assert_eq!(long.usage.unwrap().prompt_tokens, 64);
    for (query, documents, field) in [("", vec!["a".to_owned()], "query"), ("a", vec!["b".to_owned(), String::new()], "documents[1]")] {
        let error = inference.rerank(&cx, request(query, documents, 0)).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{error}");
    }
}
