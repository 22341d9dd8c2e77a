//! How good search is with all-MiniLM-L6-v2: over the corpus in `tests/fixtures/retrieval`, which prints its table.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and this one's figures go into docs/memory.md")]

mod support;

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Inference, Memory, Registry};
use llama_stack_proto::v1::{ChunkingStrategy, InsertDocumentsRequest, ListChunksRequest, TokenizeRequest, chunking_strategy::Kind};
use llama_stack_store::{Durability, Store};
use llama_stack_tests::conformance::memory::{self as banks, retrieval};
use serde_json::json;
use support::{MINILM, minilm, provider};

/// Banks whose vectors are MiniLM's.
async fn stand() -> (tempfile::TempDir, Arc<dyn Inference>, Arc<dyn Memory>) {
    let home = tempfile::tempdir().unwrap();
    let mut deps = Deps::new(home.path());
    deps.provider_id = "sqlite".into();
    let inference = provider(json!({ "models": [minilm(json!({}))] })).await.unwrap();
    deps.inference = Some(inference.clone());
    deps.extensions.insert(Store::open("sqlite::memory:", Durability::Process).await.unwrap());
    let mut registry = Registry::default();
    llama_stack_memory::register(&mut registry);
    let memory = registry.memory.build("inline::sqlite", json!({}), deps).await.unwrap();
    (home, inference, memory)
}

/// In the model's own tokens, where an estimate would be far off: words that are rare, and marks.
#[tokio::test(flavor = "multi_thread")]
async fn passages_are_as_long_as_the_model_counts() {
    let (_home, inference, memory) = stand().await;
    let cx = Context::test("acme");
    let bank = memory.create_bank(&cx, banks::vector_bank_of(MINILM)).await.unwrap();
    let words = ["electroencephalographically", "xqzvwkj", "Kühlschrankbeleuchtung", "the", "a", "of", "{}[]();", "3.14159265"];
    let text = (0..1_500).map(|n| words[n * 7 % words.len()]).collect::<Vec<_>>().join(" ");
    let chunking = ChunkingStrategy { kind: Kind::Static.into(), max_chunk_tokens: 100, overlap_tokens: 0 };
    let documents = vec![banks::text("a", &text)];
    let request = InsertDocumentsRequest { bank_id: bank.id.clone(), documents, chunking: Some(chunking), ..Default::default() };
    assert!(memory.insert_documents(&cx, request).await.unwrap().failures.is_empty());
    let listed = ListChunksRequest { bank_id: bank.id, page_size: 1_000, ..ListChunksRequest::default() };
    let chunks = memory.list_chunks(&cx, listed).await.unwrap().chunks;
    let mut lengths = Vec::new();
    for chunk in &chunks {
        let request = TokenizeRequest { model: MINILM.into(), text: chunk.text.clone(), ..TokenizeRequest::default() };
        lengths.push(inference.tokenize(&cx, request).await.unwrap().tokens.len());
    }
    assert!(lengths.len() > 50 && lengths.iter().all(|length| *length <= 100), "{lengths:?}");
    let full = lengths.iter().filter(|length| **length > 85).count();
    assert!(full + 2 >= lengths.len(), "passages are cut short: {lengths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hybrid_is_not_below_the_better_of_its_parts() {
    let (_home, inference, memory) = stand().await;
    let table = retrieval::measured(memory, inference.as_ref(), &Context::test("acme"), MINILM).await;
    println!("{table}");
    let [vector, keyword, hybrid] = ["vector", "keyword", "hybrid"].map(|way| table.all(way));
    assert!(hybrid.ndcg >= vector.ndcg.max(keyword.ndcg), "nDCG@10 of hybrid is {:.3}", hybrid.ndcg);
    assert!(hybrid.recall >= vector.recall.max(keyword.recall), "recall@10 of hybrid is {:.3}", hybrid.recall);
    // Of a kind there are a few dozen questions: one place of one of them is no difference.
    for kind in ["words", "paraphrase", "identifier"] {
        let [vector, keyword, hybrid] = ["vector", "keyword", "hybrid"].map(|way| table.of(way, kind));
        assert!(hybrid.ndcg > vector.ndcg.max(keyword.ndcg) - 0.01, "nDCG@10 of hybrid for {kind} is {:.3}", hybrid.ndcg);
        assert!(hybrid.recall > vector.recall.max(keyword.recall) - 0.015, "recall@10 of hybrid for {kind} is {:.3}", hybrid.recall);
    }
    // Far below what was measured: a broken tokenizer or fusion, and not a rounding, fails here.
    assert!(vector.ndcg > 0.7 && keyword.ndcg > 0.55 && hybrid.ndcg > 0.85);
}
