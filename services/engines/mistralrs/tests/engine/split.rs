//! GGUF files of the Llama 3.1 architecture, whole and in parts, against the reference implementation.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{
    Device,
    quantized::{
        QTensor,
        gguf_file::{self, Content, Value},
    },
};
use llama_stack_core::{Error, Inference};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    llama31::{TINY, case, cases, folder},
    *,
};

/// By what each frequency of the positions is divided. mistral.rs does not read it, so most tests leave it out.
const FACTORS: &str = "rope_freqs.weight";

/// The weights of the recorded file in so many, as `gguf-split` makes them: the first one has all that the model says of itself,
/// the others only their place.
fn parts(into: &TempDir, count: u16, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut file = File::open(folder().join("gguf/model.gguf")).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut names: Vec<&str> = content.tensor_infos.keys().map(String::as_str).filter(|name| wanted(name)).collect();
    names.sort_unstable();
    let tensors: Vec<(&str, QTensor)> = names.iter().map(|name| (*name, content.tensor(&mut file, name, &Device::Cpu).unwrap())).collect();
    let total = Value::I32(tensors.len().try_into().unwrap());
    let place = |number| [("split.no", Value::U16(number)), ("split.count", Value::U16(count)), ("split.tensors.count", total.clone())];
    let write = |(number, tensors): (u16, &[(&str, QTensor)])| {
        let place = place(number);
        let of_model = content.metadata.iter().filter(|_| number == 0).map(|(key, value)| (key.as_str(), value));
        let metadata: Vec<(&str, &Value)> = place.iter().map(|(key, value)| (*key, value)).chain(of_model).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let path = into.path().join(format!("model-{:05}-of-{count:05}.gguf", number + 1));
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        path
    };
    (0..count).zip(tensors.chunks(tensors.len().div_ceil(count.into()))).map(write).collect()
}

fn unscaled(into: &TempDir, count: u16) -> Vec<PathBuf> {
    parts(into, count, |name| name != FACTORS)
}

/// With `tokenizer.json` beside them: the way of splitting text that mistral.rs takes for a GGUF file is not Llama 3's.
async fn with_tokenizer(files: &[PathBuf]) -> Arc<dyn Inference> {
    let tokenizer = folder().join("hf/tokenizer.json");
    let file = |path: &PathBuf| json!({ "name": path.file_name().unwrap().to_str(), "from": [format!("file://{}", path.display())] });
    let files: Vec<_> = files.iter().chain([&tokenizer]).map(file).collect();
    build(json!({ "models": [{ "id": TINY, "files": files }] })).await.unwrap()
}

async fn refused(path: &Path) -> Error {
    build(json!({ "models": [{ "id": TINY, "path": path }], "load": "eager" })).await.err().expect("it was accepted")
}

/// Its prompt is long enough to show where everything stands.
#[test]
fn a_file_answers_as_the_reference_does() {
    on(async {
        let dir = tempfile::tempdir().unwrap();
        let tiny = with_tokenizer(&unscaled(&dir, 1)).await;
        for case in cases() {
            case.is_tokenized_alike(&tiny).await;
        }
        case("long").unscaled().is_answered_alike(&tiny).await;
    });
}

#[test]
fn parts_answer_as_the_whole() {
    on(async {
        let dir = tempfile::tempdir().unwrap();
        let tiny = with_tokenizer(&unscaled(&dir, 3)).await;
        case("long").unscaled().is_answered_alike(&tiny).await;
    });
}

/// Rather than answered with positions that the model was not made for.
#[test]
fn a_file_whose_positions_are_scaled_is_refused() {
    on(async {
        let error = refused(&folder().join("gguf/model.gguf")).await;
        assert_eq!((error.reason(), error.field()), (Some("positions_unsupported"), Some("files")), "{error:?}");
        let dir = tempfile::tempdir().unwrap();
        parts(&dir, 3, |_| true);
        assert_eq!(refused(dir.path()).await.reason(), Some("positions_unsupported"));
    });
}

/// By their folder, or by any one of them.
#[test]
fn parts_are_found() {
    on(async {
        let dir = tempfile::tempdir().unwrap();
        let paths = unscaled(&dir, 2);
        for path in paths.iter().map(PathBuf::as_path).chain([dir.path()]) {
            let spec = json!({ "id": TINY, "path": path });
            assert!(build(json!({ "models": [spec], "load": "eager" })).await.is_ok(), "{}", path.display());
        }
    });
}

#[test]
fn a_missing_part_is_noticed() {
    on(async {
        let dir = tempfile::tempdir().unwrap();
        for gone in unscaled(&dir, 2) {
            let kept = std::fs::read(&gone).unwrap();
            std::fs::remove_file(&gone).unwrap();
            let error = refused(dir.path()).await;
            assert!(error.message().contains("split into 2 files, and 1 of them"), "{error:?}");
            std::fs::write(&gone, kept).unwrap();
        }
    });
}
