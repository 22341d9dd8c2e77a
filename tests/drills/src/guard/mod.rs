//! Classifying with a model of Prompt Guard 2 22M's shape, random weights: `inline::candle` beside `transformers` and
//! onnxruntime, on the same weights and tokens, in turns.
//!
//! The peers are large (torch comes with its CUDA libraries): `LLAMA_STACK_DRILL_PYTHON` may name a Python that has them.

use std::{path::PathBuf, sync::Arc, time::Instant};

use llama_stack_core::{Context, Deps, Inference, Registry};
use llama_stack_proto::v1::{ClassifyInput, ClassifyRequest};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::{
    Verdict,
    figures::{Times, millis},
    python::Python,
};

mod peer;

use peer::{Engine, Peer};

const MODEL: &str = "guard";
/// The tokens of the goal; the others show how the time grows.
const WHOLE: usize = 512;
const VOCABULARY: u32 = 128_000;

pub(crate) async fn run(long: bool) -> Verdict {
    let threads = std::thread::available_parallelism().unwrap().get();
    println!("{threads} cores, load {}\n", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    let python = Python::with(&["torch==2.15.0", "transformers==4.57.6", "onnx==1.23.2", "onnxruntime==1.32.0"]);
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(&python, folder.path(), threads).await;
    let ours = provider(folder.path().to_path_buf()).await;
    let rounds = if long { 40 } else { 12 };
    println!(
        "{:>6} {:>6} {:>12} {:>18} {:>18} {:>10}",
        "texts", "tokens", "ours p50 ms", "transformers p50", "onnxruntime p50", "furthest"
    );
    let mut whole = None;
    for (texts, tokens) in [(1, 32), (1, 128), (1, WHOLE), (2, WHOLE)] {
        let row = measure(&ours, &mut peer, texts, tokens, rounds).await;
        println!(
            "{texts:>6} {tokens:>6} {:>12.1} {:>18.1} {:>18.1} {:>10.1e}",
            millis(row.ours.p50()),
            millis(row.transformers.p50()),
            millis(row.onnxruntime.p50()),
            row.furthest
        );
        assert!(row.furthest < 1e-3, "logits differ by {}", row.furthest);
        if (texts, tokens) == (1, WHOLE) {
            whole = Some(row);
        }
    }
    let whole = whole.unwrap();
    let p50 = |times: &Times| millis(times.p50());
    let (ours, torch, onnx) = (p50(&whole.ours), p50(&whole.transformers), p50(&whole.onnxruntime));
    Verdict {
        line: format!(
            "guard: {WHOLE} tokens p50 {ours:.0} ms, ratio to transformers {:.2}, to onnxruntime {:.2}",
            torch / ours,
            onnx / ours
        ),
        holds: ours <= 80.0 && ours <= torch && ours <= onnx,
    }
}

struct Row {
    ours: Times,
    transformers: Times,
    onnxruntime: Times,
    /// The greatest difference between our logits and either peer's.
    furthest: f64,
}

/// In turns, so that what else the machine does falls on all alike. The first round warms up.
async fn measure(ours: &Arc<dyn Inference>, peer: &mut Peer, texts: usize, tokens: usize, rounds: usize) -> Row {
    let mut random = StdRng::seed_from_u64(tokens as u64);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut furthest: f64 = 0.0;
    for round in 0..=rounds {
        let text = |random: &mut StdRng| {
            let mut ids: Vec<u32> = (0..tokens).map(|_| random.random_range(4..VOCABULARY)).collect();
            (ids[0], ids[tokens - 1]) = (1, 2);
            ids
        };
        let ids: Vec<Vec<u32>> = (0..texts).map(|_| text(&mut random)).collect();
        let (logits, took) = classify(ours, &ids).await;
        let mut row = vec![took];
        for engine in [Engine::Transformers, Engine::Onnxruntime] {
            let answer = peer.classify(engine, &ids).await;
            let differences = logits.iter().flatten().zip(answer.logits.iter().flatten()).map(|(a, b)| (f64::from(*a) - b).abs());
            furthest = differences.fold(furthest, f64::max);
            row.push(answer.took);
        }
        if round > 0 {
            times.iter_mut().zip(row).for_each(|(times, took)| times.push(took));
        }
    }
    let [ours, transformers, onnxruntime] = times.map(Times::new);
    Row { ours, transformers, onnxruntime, furthest }
}

async fn classify(ours: &Arc<dyn Inference>, ids: &[Vec<u32>]) -> (Vec<Vec<f32>>, std::time::Duration) {
    let inputs = ids.iter().cloned().map(ClassifyInput::tokens).collect();
    let request = ClassifyRequest { model: MODEL.into(), inputs, ..ClassifyRequest::default() };
    let begun = Instant::now();
    let response = ours.classify(&Context::system(), request).await.unwrap();
    let took = begun.elapsed();
    let logits = |one: llama_stack_proto::v1::Classification| one.scores.iter().map(|score| score.logit).collect();
    (response.classifications.into_iter().map(logits).collect(), took)
}

/// The engine as a manifest has it, with all its defaults.
async fn provider(folder: PathBuf) -> Arc<dyn Inference> {
    let mut registry = Registry::default();
    llama_stack_engine_candle::register(&mut registry);
    let config = json!({ "models": [{ "id": MODEL, "path": folder }] });
    registry.inference.build("inline::candle", config, Deps::new(folder)).await.unwrap()
}
