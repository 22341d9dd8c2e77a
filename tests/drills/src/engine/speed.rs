//! Prefill and decode on the same file: a prebuilt llama.cpp, `inline::llama-cpp` and, for a short prompt,
//! `inline::mistralrs`.

use std::{path::PathBuf, sync::Arc};

use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::TokenizeRequest;
use llama_stack_tests::conformance::local::{models, qwen_spec, smol_spec};
use serde_json::{Value, json};

use super::{
    answer::{Speed, complete, engine, resolve, tokens, with_options},
    peer::Peer,
};
use crate::python::Python;

const CONTEXT: u32 = 4_096;

/// mistralrs is slow, and takes all cores: it gets a short prompt and few tokens.
const SHORT: (usize, u32) = (64, 16);

struct Sizes {
    prompts: &'static [usize],
    tokens: u32,
    rounds: usize,
    /// Of mistralrs.
    mistral_rounds: usize,
}

/// The least ratios of all: ours through theirs.
pub(super) async fn run(python: &Python, long: bool) -> Speed {
    let sizes = if long {
        Sizes { prompts: &[512, 2_048], tokens: 64, rounds: 5, mistral_rounds: 3 }
    } else {
        Sizes { prompts: &[256], tokens: 32, rounds: 3, mistral_rounds: 1 }
    };
    let files = [("Qwen 0.5B Q4_K_M", limited(qwen_spec())), ("SmolLM2 135M Q8_0", limited(q8(python).await))];
    println!("{:<18} {:>7} {:>6} | {:^31} | {:^31}", "", "", "", "prefill, tokens/s", "decode, tokens/s");
    println!(
        "{:<18} {:>7} {:>6} | {:>9} {:>6} {:>5} {:>8} | {:>9} {:>6} {:>5} {:>8}",
        "", "threads", "prompt", "llama.cpp", "ours", "ratio", "mistral", "llama.cpp", "ours", "ratio", "mistral"
    );
    let mut least = Speed { prefill: f64::INFINITY, decode: f64::INFINITY };
    for (name, spec) in &files {
        for threads in [1, 2] {
            let mut both = Both::start(python, spec, threads).await;
            for prompt in sizes.prompts {
                let (theirs, ours) = both.measure(*prompt, sizes.tokens, sizes.rounds).await;
                row(name, threads, *prompt, theirs, ours, None);
                least = least.least(&ours.over(&theirs));
            }
            if threads == 2 {
                let (prompt, tokens) = SHORT;
                let (theirs, ours) = both.measure(prompt, tokens, sizes.rounds).await;
                let mistral = both.mistral(spec, sizes.mistral_rounds).await;
                row(name, threads, prompt, theirs, ours, Some(mistral));
            }
        }
    }
    least
}

fn row(name: &str, threads: u32, prompt: usize, theirs: Speed, ours: Speed, mistral: Option<Speed>) {
    let ratio = ours.over(&theirs);
    let part = |part: fn(&Speed) -> f64| {
        let mistral = mistral.as_ref().map_or_else(|| "-".to_owned(), |speed| format!("{:.1}", part(speed)));
        format!("{:>9.1} {:>6.1} {:>5.2} {mistral:>8}", part(&theirs), part(&ours), part(&ratio))
    };
    println!("{name:<18} {threads:>7} {prompt:>6} | {} | {}", part(|speed| speed.prefill), part(|speed| speed.decode));
}

fn limited(mut spec: Value) -> Value {
    spec["context_length"] = CONTEXT.into();
    spec
}

/// SmolLM2 as Q8_0, made once of the tests' Q4_1 and kept beside it.
async fn q8(python: &Python) -> Value {
    let path = models().join("smollm2-135m-instruct.Q8_0.gguf");
    if !path.exists() {
        python.quantize(resolve(smol_spec()).await.file("model.gguf").unwrap(), &path);
    }
    json!({ "id": "smollm2-135m-instruct-q8_0", "path": path })
}

/// Both sides with one file and as many threads, in turn: a drifting machine touches both alike.
struct Both {
    model: String,
    theirs: Peer,
    ours: Arc<dyn Inference>,
}

impl Both {
    async fn start(python: &Python, spec: &Value, threads: u32) -> Self {
        let options = json!({ "threads": threads, "prefix_reuse": false, "drafts": false });
        let ours = engine("inline::llama-cpp", with_options(spec.clone(), options)).await;
        let theirs = Peer::start(python, &file(spec).await, threads, CONTEXT, 1);
        let mut both = Self { model: spec["id"].as_str().unwrap().to_owned(), theirs, ours };
        // Brings the weights into memory, and tells the engine how fast it is.
        let (prompt, tokens) = SHORT;
        both.measure(prompt, tokens, 1).await;
        both
    }

    async fn measure(&mut self, prompt: usize, count: u32, rounds: usize) -> (Speed, Speed) {
        let prompt = self.prompt(prompt).await;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            theirs.push(self.their_speed(&prompt, count).await);
            ours.push(self.our_speed(&prompt, count).await);
        }
        (Speed::median(&theirs), Speed::median(&ours))
    }

    async fn their_speed(&mut self, prompt: &Vec<u32>, count: u32) -> Speed {
        let seconds = self.theirs.generate(std::slice::from_ref(prompt), count).await;
        Speed { prefill: prompt.len() as f64 / seconds.prefill, decode: f64::from(count - 1) / seconds.decode }
    }

    async fn our_speed(&self, prompt: &[u32], count: u32) -> Speed {
        let answer = complete(&self.ours, tokens(&self.model, prompt, count)).await;
        assert_eq!(answer.usage.completion_tokens, count, "the answer ended early");
        answer.speed()
    }

    async fn mistral(&self, spec: &Value, rounds: usize) -> Speed {
        let (length, count) = SHORT;
        let prompt = self.prompt(length).await;
        let mistral = engine("inline::mistralrs", spec.clone()).await;
        let mut speeds = Vec::new();
        for round in 0..=rounds {
            let answer = complete(&mistral, tokens(&self.model, &prompt, count)).await;
            if round > 0 {
                speeds.push(answer.speed());
            }
        }
        Speed::median(&speeds)
    }

    /// So many tokens of a text that any model goes on with.
    async fn prompt(&self, length: usize) -> Vec<u32> {
        let text: String = (1..=length).map(|n| format!("Entry {n}: the quick brown fox jumps over the lazy dog.\n")).collect();
        let request = TokenizeRequest { model: self.model.clone(), text, ..TokenizeRequest::default() };
        let mut tokens = self.ours.tokenize(&Context::test("drill"), request).await.unwrap().tokens;
        tokens.truncate(length);
        tokens
    }
}

async fn file(spec: &Value) -> PathBuf {
    resolve(spec.clone()).await.with_extension("gguf").first().unwrap().to_path_buf()
}
