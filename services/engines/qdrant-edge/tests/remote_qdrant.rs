//! `remote::qdrant` against Qdrant's gRPC API on a real socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod server;

use std::sync::Arc;

use llama_stack_core::{Code, Deps, context::Secret};
use llama_stack_memory::{
    index::{BankKey, Index, Search, Shape},
    qdrant::remote::{Config, QdrantIndex},
};
use llama_stack_proto::v1::{Chunk, Ranker, SearchMode, Value, ranker::Kind, value};
use llama_stack_qdrant_edge::EdgeIndex;
use llama_stack_tests::conformance;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;

fn config(url: &str, key: &str) -> Config {
    let config: Config = serde_json::from_value(json!({ "url": url })).unwrap();
    Config { api_key: Secret::new(key), ..config }
}

async fn remote() -> Arc<dyn Index> {
    let server = server::serve().await;
    Arc::new(QdrantIndex::new(config(&server.url, server.key)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises_of_an_index() {
    conformance::index::all(remote().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gives_the_same_results_as_the_embedded_engine() {
    let folder = tempfile::tempdir().unwrap();
    let deps = Deps { provider_id: "edge".into(), ..Deps::new(folder.path()) };
    let embedded: Arc<dyn Index> = Arc::new(EdgeIndex::new(Default::default(), &deps).await.unwrap());
    let (remote, bank) = (remote().await, BankKey { tenant: "a".into(), bank_id: "same".into() });
    let mut random = StdRng::seed_from_u64(7);
    let words = ["ship", "harbour", "bread", "flour", "sails", "storm", "baker", "oven", "anchor", "salt"];
    let mut text = |count: usize| (0..count).map(|_| *words.choose(&mut random).unwrap()).collect::<Vec<_>>().join(" ");
    let texts: Vec<String> = (0..200).map(|n| text(3 + n % 9)).collect();
    let queries: Vec<String> = (0..20).map(|_| text(2)).collect();
    let mut vector = || (0..16).map(|_| random.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let chunks: Vec<Chunk> = texts
        .into_iter()
        .enumerate()
        .map(|(n, text)| Chunk {
            id: format!("c{n}"),
            document_id: format!("d{}", n / 5),
            text,
            vector: vector(),
            attributes: [("n".to_owned(), Value { value: Some(value::Value::Number(n as f64)) })].into(),
            ..Chunk::default()
        })
        .collect();
    for index in [&embedded, &remote] {
        index.create(&bank, &Shape { dimension: 16, keyword: true }).await.unwrap();
        index.upsert(&bank, chunks.clone()).await.unwrap();
        index.delete_documents(&bank, &["d3".to_owned()]).await.unwrap();
    }
    for text in queries {
        for (mode, kind) in [
            (SearchMode::Vector, Kind::Rrf),
            (SearchMode::Keyword, Kind::Rrf),
            (SearchMode::Hybrid, Kind::Rrf),
            (SearchMode::Hybrid, Kind::Weighted),
        ] {
            let ranker = Ranker { kind: kind.into(), ..Ranker::default() };
            let search = Search { text: text.clone(), vector: vector(), mode, limit: 20, ranker, ..Search::default() };
            let (one, other) = (embedded.search(&bank, &search).await.unwrap(), remote.search(&bank, &search).await.unwrap());
            assert!(!one.is_empty() && one.len() == other.len());
            for (one, other) in one.iter().zip(&other) {
                assert_eq!(one.chunk, other.chunk, "{search:?}");
                assert!((one.score - other.score).abs() < 1e-5);
            }
        }
    }
    let list = |index: Arc<dyn Index>, bank: BankKey| async move { index.scroll(&bank, None, None, 1000, true).await.unwrap() };
    assert_eq!(list(embedded, bank.clone()).await, list(remote, bank).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_server_is_told() {
    let server = server::serve().await;
    let bank = BankKey { tenant: "a".into(), bank_id: "b".into() };
    let refused = QdrantIndex::new(config(&server.url, "wrong")).unwrap().stats(&bank).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("api_key"), "{refused}");
    let absent = QdrantIndex::new(config(&server.url, server.key)).unwrap().stats(&bank).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let nobody = QdrantIndex::new(config("http://127.0.0.1:1", "")).unwrap().stats(&bank).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unavailable);
    assert_eq!(QdrantIndex::new(config("not a url", "")).err().unwrap().field(), Some("config.url"));
}
