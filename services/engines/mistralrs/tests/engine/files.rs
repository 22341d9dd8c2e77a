use std::path::Path;

use llama_stack_core::{Code, Error};
use serde_json::json;

use crate::support::*;

async fn refused(path: &Path) -> Error {
    build(json!({ "models": [{ "id": "m", "path": path }] })).await.err().expect("it was accepted")
}

#[test]
fn files_that_are_no_model_are_refused_before_an_engine_sees_them() {
    on(async {
        let dir = tempfile::tempdir().unwrap();
        let missing = refused(&dir.path().join("org/model")).await;
        assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
        let garbage = dir.path().join("garbage.gguf");
        std::fs::write(&garbage, b"not a model at all, and long enough to be read as a header").unwrap();
        let error = refused(&garbage).await;
        assert!(error.message().contains("is not a GGUF file"), "{error:?}");
        let text = dir.path().join("notes.txt");
        std::fs::write(&text, b"hello").unwrap();
        assert!(refused(&text).await.message().contains("neither"), "{:?}", refused(&text).await);
        assert_eq!(build(json!({ "models": [] })).await.err().unwrap().field(), Some("config.models"));
        let unknown = build(json!({ "models": [], "quue": 1 })).await.err().unwrap();
        assert!(unknown.message().contains("quue"), "{unknown:?}");
    });
}

#[test]
fn a_truncated_file_is_refused() {
    on(async {
        let Some(_) = smol().await else { return };
        let whole = build(json!({ "models": [smol_spec()], "load": "lazy" })).await;
        assert!(whole.is_ok());
        let dir = tempfile::tempdir().unwrap();
        let from = smol_spec()["files"][0]["from"][0].as_str().unwrap().to_owned();
        let Some(from) = from.strip_prefix("file://") else { return };
        let half = dir.path().join("half.gguf");
        let bytes = std::fs::read(from).unwrap();
        std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
        let error = refused(&half).await;
        assert_eq!(error.code(), Code::DataLoss, "{error:?}");
        assert!(error.message().contains("98362432"), "{error:?}");
    });
}

#[test]
fn a_file_with_another_hash_is_refused() {
    on(async {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.gguf");
        std::fs::write(&file, b"GGUF....").unwrap();
        let from = format!("file://{}", file.display());
        let spec = json!({ "id": "m", "files": [{ "name": "m.gguf", "sha256": "0".repeat(64), "from": [from] }] });
        let error = build(json!({ "models": [spec] })).await.err().unwrap();
        assert_eq!(error.code(), Code::DataLoss, "{error:?}");
    });
}

#[test]
fn a_broken_template_and_wrong_options_are_refused() {
    on(async {
        let Some(_) = smol().await else { return };
        let mut spec = smol_spec();
        spec["chat_template"] = json!("{% for %}");
        let error = build(json!({ "models": [spec], "load": "lazy" })).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("chat_template")), "{error:?}");
        let mut spec = smol_spec();
        spec["options"] = json!({ "isq": "q8_0" });
        let error = build(json!({ "models": [spec], "load": "eager" })).await.err().unwrap();
        assert!(error.message().contains("quantised already"), "{error:?}");
    });
}
