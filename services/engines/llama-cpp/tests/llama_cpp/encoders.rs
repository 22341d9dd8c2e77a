//! Encoders in GGUF, with weights that candle has too: both compute the same, each in its own way.

use std::sync::Arc;

use llama_stack_core::{Code, Deps, Inference, Registry};
use llama_stack_proto::v1::{EmbedInput, EmbedRequest, GetModelRequest, ModelKind, RerankRequest, embed_input::Input};
use llama_stack_tests::conformance::local::{cx, home, on};
use serde_json::json;

use crate::made::bert;

const ID: &str = "tiny-bert";
const TEXTS: [&str; 5] =
    ["the river rose by seven feet.", "bread", "what is a city?", "Walking walks the stones", "bread is baked from flour and water."];

/// The same weights on candle and on llama.cpp.
async fn both(reranks: bool) -> [Arc<dyn Inference>; 2] {
    let folder = tempfile::tempdir().unwrap().keep();
    let file = folder.join("model.gguf");
    let published = folder.join("published");
    std::fs::create_dir(&published).unwrap();
    bert::publish(&published, reranks);
    bert::convert(&file, reranks);
    let options = if reranks { json!({ "kind": "reranker" }) } else { json!({}) };
    let mut registry = Registry::default();
    llama_stack_engine_candle::register(&mut registry);
    let config = json!({ "models": [{ "id": ID, "path": published }] });
    let candle = registry.inference.build("inline::candle", config, Deps::new(home())).await.unwrap();
    let spec = json!({ "id": ID, "path": file, "options": options });
    [candle, crate::SUBJECT.build(json!({ "models": [spec], "load": "eager" })).await.unwrap()]
}

/// Its file names no end token, without which grammars cannot be made; an encoder needs none.
#[test]
fn an_encoder_without_an_end_token_gives_the_vectors_that_candle_gives() {
    on(async {
        let [candle, llama] = both(false).await;
        let embed = async |inference: &Arc<dyn Inference>| {
            let inputs = TEXTS.iter().map(|text| EmbedInput { input: Some(Input::Text((*text).into())) }).collect();
            inference.embed(&cx(), EmbedRequest { model: ID.into(), inputs, ..EmbedRequest::default() }).await.unwrap()
        };
        let (theirs, ours) = (embed(&candle).await, embed(&llama).await);
        assert_eq!(ours.usage, theirs.usage, "the texts were split differently");
        let likeness = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for (at, (ours, theirs)) in ours.embeddings.iter().zip(&theirs.embeddings).enumerate() {
            assert!(likeness(&ours.values, &theirs.values) > 0.999, "{} {}", TEXTS[at], likeness(&ours.values, &theirs.values));
        }
        let least = likeness(&ours.embeddings[0].values, &ours.embeddings[1].values);
        assert!(least < 0.98, "all texts are alike to it ({least}): nothing is shown");
        let unknown = EmbedRequest {
            model: ID.into(),
            inputs: vec![EmbedInput { input: Some(Input::Tokens(llama_stack_proto::v1::Tokens { ids: vec![2, 99_999, 3] })) }],
            ..EmbedRequest::default()
        };
        assert_eq!(llama.embed(&cx(), unknown).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn documents_are_ranked_by_the_scores_that_candle_gives() {
    on(async {
        let [candle, llama] = both(true).await;
        let model = llama.get_model(&cx(), GetModelRequest { id: ID.into() }).await.unwrap();
        assert_eq!(model.kind(), ModelKind::Reranker);
        let request = |query: &str, documents: &[&str], top_n| RerankRequest {
            model: ID.into(),
            query: query.into(),
            documents: documents.iter().map(|text| (*text).to_owned()).collect(),
            top_n,
        };
        for query in ["what is bread?", "seven feet"] {
            let theirs = candle.rerank(&cx(), request(query, &TEXTS, 0)).await.unwrap();
            let ours = llama.rerank(&cx(), request(query, &TEXTS, 0)).await.unwrap();
            assert_eq!(ours.usage, theirs.usage, "the pairs were split differently");
            assert_eq!(ours.results.len(), TEXTS.len());
            let score = |index| theirs.results.iter().find(|result| result.index == index).unwrap().score;
            for result in &ours.results {
                assert!((result.score - score(result.index)).abs() < 0.01, "{query} {result:?} {}", score(result.index));
            }
            assert!(ours.results[0].score - ours.results[4].score > 0.05, "all are alike to it: {ours:?}");
            assert!(ours.results.windows(2).all(|pair| pair[0].score >= pair[1].score));
            let best = llama.rerank(&cx(), request(query, &TEXTS, 2)).await.unwrap();
            assert_eq!(
                best.results.iter().map(|one| one.index).collect::<Vec<_>>(),
                ours.results[..2].iter().map(|one| one.index).collect::<Vec<_>>()
            );
        }
        for (query, documents, field) in [("", &["a"][..], "query"), ("a", &["b", ""][..], "documents[1]"), ("a", &[][..], "documents")] {
            let error = llama.rerank(&cx(), request(query, documents, 0)).await.unwrap_err();
            assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{error}");
        }
        let long = llama.rerank(&cx(), request("the river", &[&"stone ".repeat(80)], 0)).await.unwrap_err();
        assert_eq!((long.reason(), long.field()), (Some("context_length_exceeded"), Some("documents[0]")));
    });
}
