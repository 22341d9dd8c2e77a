//! How good search is with all-MiniLM-L6-v2: over the corpus in `tests/fixtures/retrieval`, which prints its table.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and this one's figures go into docs/memory.md")]

mod support;

use llama_stack_core::{Context, Deps, Registry};
use llama_stack_store::{Durability, Store};
use llama_stack_tests::conformance::memory::retrieval;
use serde_json::json;
use support::{MINILM, minilm, provider};

#[tokio::test(flavor = "multi_thread")]
async fn hybrid_is_not_below_the_better_of_its_parts() {
    let home = tempfile::tempdir().unwrap();
    let mut deps = Deps::new(home.path());
    deps.provider_id = "sqlite".into();
    deps.inference = Some(provider(json!({ "models": [minilm(json!({}))] })).await.unwrap());
    deps.extensions.insert(Store::open("sqlite::memory:", Durability::Process).await.unwrap());
    let mut registry = Registry::default();
    llama_stack_memory::register(&mut registry);
    let memory = registry.memory.build("inline::sqlite", json!({}), deps).await.unwrap();
    let table = retrieval::measured(memory, &Context::test("acme"), MINILM).await;
    println!("{table}");
    let [vector, keyword, hybrid] = ["vector", "keyword", "hybrid"].map(|way| table.all(way));
    assert!(hybrid.ndcg >= vector.ndcg.max(keyword.ndcg), "nDCG@10 of hybrid is {:.3}", hybrid.ndcg);
    assert!(hybrid.recall >= vector.recall.max(keyword.recall), "recall@10 of hybrid is {:.3}", hybrid.recall);
    // Far below what was measured: a broken tokenizer or fusion, and not a rounding, fails here.
    assert!(vector.ndcg > 0.7 && keyword.ndcg > 0.55 && hybrid.ndcg > 0.72);
}
