use std::path::Path;

use llama_stack_core::{Code, Error};
use serde_json::json;

use super::*;

async fn refused(subject: &Subject, path: &Path) -> Error {
    subject.build(json!({ "models": [{ "id": "m", "path": path }] })).await.err().expect("it was accepted")
}

pub async fn files_that_are_no_model_are_refused_before_an_engine_sees_them(subject: &Subject) {
    let dir = tempfile::tempdir().unwrap();
    let missing = refused(subject, &dir.path().join("org/model")).await;
    assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
    let garbage = dir.path().join("garbage.gguf");
    std::fs::write(&garbage, b"not a model at all, and long enough to be read as a header").unwrap();
    let error = refused(subject, &garbage).await;
    assert!(error.message().contains("is not a GGUF file"), "{error:?}");
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, b"hello").unwrap();
    let neither = refused(subject, &text).await;
    assert_eq!((neither.code(), neither.field()), (Code::InvalidArgument, Some("files")), "{neither:?}");
    assert_eq!(subject.build(json!({ "models": [] })).await.err().unwrap().field(), Some("config.models"));
    let unknown = subject.build(json!({ "models": [], "quue": 1 })).await.err().unwrap();
    assert!(unknown.message().contains("quue"), "{unknown:?}");
}

pub async fn a_truncated_file_is_refused(subject: &Subject) {
    let dir = tempfile::tempdir().unwrap();
    let store = llama_stack_models::ModelStore::open(models()).unwrap();
    let file: llama_stack_models::ModelFile = serde_json::from_value(smol_spec()["files"][0].clone()).unwrap();
    let whole = store.ensure(&file, &Deps::new(models()).on_progress).await.unwrap();
    let half = dir.path().join("half.gguf");
    let bytes = std::fs::read(whole).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let error = refused(subject, &half).await;
    assert_eq!(error.code(), Code::DataLoss, "{error:?}");
    assert!(error.message().contains("98362432"), "{error:?}");
}

pub async fn a_file_with_another_hash_is_refused(subject: &Subject) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.gguf");
    std::fs::write(&file, b"GGUF....").unwrap();
    let from = format!("file://{}", file.display());
    let spec = json!({ "id": "m", "files": [{ "name": "m.gguf", "sha256": "0".repeat(64), "from": [from] }] });
    let error = subject.build(json!({ "models": [spec] })).await.err().unwrap();
    assert_eq!(error.code(), Code::DataLoss, "{error:?}");
}

pub async fn a_broken_template_and_unknown_options_are_refused(subject: &Subject) {
    let mut spec = smol_spec();
    spec["chat_template"] = json!("{% for %}");
    let error = subject.build(json!({ "models": [spec], "load": "lazy" })).await.err().unwrap();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("chat_template")), "{error:?}");
    let mut spec = smol_spec();
    spec["options"] = json!({ "isqq": "q8_0" });
    let error = subject.build(json!({ "models": [spec], "load": "lazy" })).await.err().unwrap();
    assert!(error.message().contains("isqq"), "{error:?}");
}
