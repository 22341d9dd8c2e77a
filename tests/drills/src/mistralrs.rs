//! `inline::mistralrs` beside mistralrs used bare: same file, same prompt, in turn.

use std::{sync::Arc, time::Instant};

use llama_stack_core::{Context, Inference};
use llama_stack_proto::v1::ChatRequest;
use llama_stack_tests::conformance::local::{SMOL, smol_spec};
use mistralrs::{Model, RequestBuilder, Response, TextMessageRole, TokenSource};

use crate::{
    Verdict,
    engine::answer::{chat, engine, resolve},
    figures::median,
};

/// Seconds to the first token, and tokens a second after it.
struct Speed {
    first: f64,
    decode: f64,
}

pub(crate) async fn run(long: bool) -> Verdict {
    let adapted = engine("inline::mistralrs", smol_spec()).await;
    let bare = bare().await;
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
    Verdict { line: format!("mistralrs: prefill ratio {prefill:.2}, decode ratio {decode:.2}"), holds: prefill >= 0.98 && decode >= 0.98 }
}

async fn bare() -> Model {
    let resolved = resolve(smol_spec()).await;
    mistralrs::GgufModelBuilder::new(resolved.dir.to_str().unwrap(), vec!["model.gguf"])
        .with_token_source(TokenSource::None)
        .with_force_cpu()
        .with_prefix_cache_n(None)
        .build()
        .await
        .unwrap()
}

async fn run_adapted(adapted: &Arc<dyn Inference>, prompt: &str, tokens: u32) -> Speed {
    let answer = chat(adapted, &Context::default(), ChatRequest::user(SMOL, prompt).greedy(tokens)).await;
    Speed { first: answer.first, decode: answer.decode() }
}

async fn run_bare(model: &Model, prompt: &str, tokens: u32) -> Speed {
    let request = RequestBuilder::new()
        .add_message(TextMessageRole::User, prompt)
        .set_sampler_temperature(0.0)
        .set_sampler_topk(1)
        .set_sampler_max_len(tokens as usize);
    let begun = Instant::now();
    let mut stream = model.stream_chat_request(request).await.unwrap();
    let (mut first, mut generated) = (None, 0u32);
    while let Some(response) = stream.next().await {
        let Response::Chunk(chunk) = response else { break };
        first.get_or_insert_with(|| begun.elapsed());
        generated += 1;
        if chunk.choices.iter().any(|choice| choice.finish_reason.is_some()) {
            break;
        }
    }
    let (first, whole) = (first.unwrap().as_secs_f64(), begun.elapsed().as_secs_f64());
    Speed { first, decode: f64::from(generated.saturating_sub(1)) / (whole - first) }
}
