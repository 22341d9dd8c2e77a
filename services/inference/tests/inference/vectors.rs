//! Embeddings and rankings.

use serde_json::json;

use llama_stack_core::Code;
use llama_stack_proto::v1::{EmbedInput, EmbedPurpose, EmbedRequest, RerankRequest, Tokens, Truncation, embed_input::Input};

use crate::{
    cx, openai,
    server::{Server, json},
};

fn request(inputs: Vec<EmbedInput>) -> EmbedRequest {
    EmbedRequest { model: "m".into(), inputs, ..EmbedRequest::default() }
}

fn two() -> EmbedRequest {
    request(vec![EmbedInput::text("a"), EmbedInput { input: Some(Input::Tokens(Tokens { ids: vec![1, 2] })) }])
}

#[tokio::test]
async fn vectors_come_in_the_order_of_the_inputs_as_numbers_or_base64() {
    // -1.5 and 2 as little-endian 32-bit floats.
    let body = json!({ "data": [{ "index": 1, "embedding": "AADAvwAAAEA=" }, { "index": 0, "embedding": [0.25, -1] }], "usage": { "prompt_tokens": 3 } });
    let server = Server::start(move |_, _| json(&body)).await;
    let provider = openai(json!({ "url": server.url, "preset": "openai" })).await;
    let response = provider.embed(&cx(), EmbedRequest { dimensions: 2, user: "ann".into(), ..two() }).await.unwrap();
    let values: Vec<&[f32]> = response.embeddings.iter().map(|embedding| embedding.values.as_slice()).collect();
    assert_eq!(values, [[0.25, -1.0], [-1.5, 2.0]]);
    assert_eq!((response.model.as_str(), response.usage.unwrap().prompt_tokens), ("m", 3));
    let sent = server.requests()[0].json();
    assert_eq!(sent, json!({ "model": "m", "input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 2, "user": "ann" }));
}

#[tokio::test]
async fn a_server_that_tells_queries_from_passages_is_told() {
    let server = Server::start(|_, _| json(&json!({ "data": [{ "embedding": [1] }] }))).await;
    let provider = openai(json!({ "url": server.url, "preset": "nim" })).await;
    let one = || request(vec![EmbedInput::text("a")]);
    provider.embed(&cx(), EmbedRequest { purpose: EmbedPurpose::Query.into(), ..one() }).await.unwrap();
    provider.embed(&cx(), one()).await.unwrap();
    let kinds: Vec<_> = server.requests().iter().map(|request| request.json()["input_type"].clone()).collect();
    assert_eq!(kinds, ["query", "passage"]);
}

#[tokio::test]
async fn dimensions_have_the_servers_name() {
    let server = Server::start(|_, _| json(&json!({ "data": [{ "embedding": [1] }] }))).await;
    let provider = openai(json!({ "url": server.url, "preset": "mistral" })).await;
    provider.embed(&cx(), EmbedRequest { dimensions: 1, ..request(vec![EmbedInput::text("a")]) }).await.unwrap();
    assert_eq!(server.requests()[0].json(), json!({ "model": "m", "input": ["a"], "encoding_format": "float", "output_dimension": 1 }));
}

#[tokio::test]
async fn wrong_vectors_are_malformed() {
    for data in [
        json!([{ "index": 0, "embedding": [1] }]),
        json!([{ "index": 0, "embedding": [1] }, { "index": 0, "embedding": [1] }]),
        json!([{ "index": 0, "embedding": [1] }, { "index": 7, "embedding": [1] }]),
        json!([{ "index": 0, "embedding": [1] }, { "index": 1, "embedding": "AADA" }]),
        json!([{ "index": 0, "embedding": [1] }, { "index": 1, "embedding": "?" }]),
    ] {
        let body = json!({ "data": data });
        let server = Server::start(move |_, _| json(&body)).await;
        let error = openai(json!({ "url": server.url })).await.embed(&cx(), two()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_malformed")), "{data}");
    }
}

#[tokio::test]
async fn truncation_that_cannot_be_reported_is_refused() {
    let provider = openai(json!({ "url": "http://127.0.0.1:1" })).await;
    let error = provider.embed(&cx(), EmbedRequest { truncation: Truncation::End.into(), ..two() }).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::Unimplemented, Some("truncation")));
}

#[tokio::test]
async fn a_ranking_comes_best_first() {
    let body = json!({ "results": [{ "index": 0, "relevance_score": 0.1 }, { "index": 1, "relevance_score": 0.9 }] });
    let server = Server::start(move |_, _| json(&body)).await;
    let provider = openai(json!({ "url": server.url })).await;
    let request = |documents: &[&str]| RerankRequest {
        model: "m".into(),
        query: "q".into(),
        documents: documents.iter().map(|document| (*document).into()).collect(),
        top_n: 2,
    };
    let results = provider.rerank(&cx(), request(&["x", "y"])).await.unwrap().results;
    assert_eq!(results.iter().map(|result| result.index).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(server.requests()[0].json(), json!({ "model": "m", "query": "q", "documents": ["x", "y"], "top_n": 2 }));
    assert_eq!(provider.rerank(&cx(), request(&["x"])).await.unwrap_err().reason(), Some("upstream_malformed"));
}
