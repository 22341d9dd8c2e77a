//! Several answers at once: what a step for all of them costs, and whether all of them get on. Beside a prebuilt llama.cpp
//! with the same batches, for what its kernels do with them is the most that there is to have.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams, TokenizeRequest};
use llama_stack_tests::conformance::local::{QWEN, qwen_spec};
use serde_json::json;

use super::{
    answer::{complete, engine, resolve, tokens, with_options},
    cores,
    peer::Peer,
};
use crate::{figures::median, python::Python};

const AT_ONCE: [usize; 4] = [1, 2, 4, 8];

pub(super) struct Found {
    /// Tokens a second of four at once, by those of one.
    pub(super) batch4: f64,
    /// The slowest answer's share of the mean, at worst.
    pub(super) slowest: f64,
}

/// Of some answers at once.
#[derive(Default)]
struct Rates {
    total: Vec<f64>,
    slowest: Vec<f64>,
    theirs: Vec<f64>,
}

pub(super) async fn run(python: &Python, long: bool) -> Found {
    let (count, rounds) = if long { (96, 5) } else { (24, 2) };
    let spec = with_options(qwen_spec(), json!({ "threads": cores(), "prefix_reuse": false, "drafts": false }));
    let file = resolve(spec.clone()).await.file("model.gguf").unwrap().to_owned();
    let mut theirs = Peer::start(python, &file, u32::try_from(cores()).unwrap(), 4_096, AT_ONCE[3]);
    let ours = Ours::start(engine("inline::llama-cpp", spec).await).await;
    theirs.generate(&ours.prompts[..2], 8).await;
    ours.at_once(2, 8).await;
    let mut rates = AT_ONCE.map(|_| Rates::default());
    for _ in 0..rounds {
        for (rates, at_once) in rates.iter_mut().zip(AT_ONCE) {
            let seconds = theirs.generate(&ours.prompts[..at_once], count).await;
            rates.theirs.push(at_once as f64 * f64::from(count) / (seconds.prefill + seconds.decode));
            let (total, slowest) = ours.at_once(at_once, count).await;
            rates.total.push(total);
            rates.slowest.push(slowest);
        }
    }
    table(rates)
}

fn table(rates: [Rates; 4]) -> Found {
    println!("\n{:<12} {:>10} {:>7} {:>15} | {:>10} {:>7}", "at once", "tokens/s", "ratio", "slowest / mean", "llama.cpp", "ratio");
    let mut alone = None;
    let mut found = Found { batch4: 0.0, slowest: f64::INFINITY };
    for (Rates { total, slowest, theirs }, at_once) in rates.into_iter().zip(AT_ONCE) {
        let (total, slowest, theirs) = (median(total), median(slowest), median(theirs));
        let (total_alone, theirs_alone) = *alone.get_or_insert((total, theirs));
        let ratio = total / total_alone;
        println!("{at_once:<12} {total:>10.1} {ratio:>7.2} {slowest:>15.2} | {theirs:>10.1} {:>7.2}", theirs / theirs_alone);
        found.slowest = found.slowest.min(slowest);
        if at_once == 4 {
            found.batch4 = ratio;
        }
    }
    found
}

struct Ours {
    engine: Arc<dyn Inference>,
    prompts: Vec<Vec<u32>>,
    /// The tokens that end an answer: without them all answers are equally long.
    ends: Vec<u32>,
}

impl Ours {
    async fn start(engine: Arc<dyn Inference>) -> Self {
        let tokenize = async |text: String| {
            let request = TokenizeRequest { model: QWEN.into(), text, ..TokenizeRequest::default() };
            engine.tokenize(&Context::test("drill"), request).await.unwrap().tokens
        };
        let mut prompts = Vec::new();
        for n in 1..=AT_ONCE[3] {
            prompts.push(tokenize(format!("Story {n}: Once upon a time")).await);
        }
        let ends = tokenize("<|im_end|><|endoftext|>".into()).await;
        Self { engine, prompts, ends }
    }

    /// Tokens a second of all together, and the slowest one's by the mean.
    async fn at_once(&self, at_once: usize, count: u32) -> (f64, f64) {
        let begun = Instant::now();
        let answers = join_all(self.prompts[..at_once].iter().map(|prompt| complete(&self.engine, self.request(prompt, count)))).await;
        let elapsed = begun.elapsed().as_secs_f64();
        let rates: Vec<f64> = answers.iter().map(|answer| f64::from(answer.usage.completion_tokens) / answer.whole).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let made: u32 = answers.iter().map(|answer| answer.usage.completion_tokens).sum();
        (f64::from(made) / elapsed, rates.into_iter().fold(f64::INFINITY, f64::min) / mean)
    }

    fn request(&self, prompt: &[u32], count: u32) -> CompleteRequest {
        let sampling = SamplingParams { logit_bias: self.ends.iter().map(|end| (*end, -100.0)).collect(), ..SamplingParams::greedy(count) };
        CompleteRequest { sampling: Some(sampling), ..tokens(QWEN, prompt, count) }
    }
}
