//! Drills: each compares or breaks something real, prints a table, and as its last line the figure.
//!
//! `cargo drill list` says what each shows; `cargo drill NAME [--long]` runs one. The exit code is 0 where its goal holds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a drill prints its figures")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a drill that cannot run fails loudly")]

mod binary;
mod call;
pub mod crash;
pub mod crash_memory;
#[cfg(feature = "engine")]
mod embeddings;
#[cfg(feature = "engine")]
mod engine;
mod figures;
#[cfg(feature = "engine")]
mod guard;
mod hostile;
pub mod injection;
mod load;
#[cfg(feature = "engine")]
mod mistralrs;
pub mod mutations;
mod overload;
mod passthrough;
mod platform;
mod policy;
mod python;
pub mod replicas;
#[cfg(feature = "engine")]
mod shields;
mod soak;
mod startup;
mod steps;
mod turn;
mod upstream;
#[cfg(feature = "engine")]
mod vectors;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
struct Args {
    /// A drill's name, or `list`
    name: String,
    /// The full form, whose figures go into docs/
    #[arg(long)]
    long: bool,
    /// Of `crash`: on a Postgres server of its own, not on SQLite
    #[arg(long)]
    postgres: bool,
    /// Of `mutations`: how many requests
    #[arg(long)]
    count: Option<u64>,
    /// Of `soak`: for how long, for example 0.1
    #[arg(long)]
    hours: Option<f64>,
    /// What cargo tells every benchmark
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

/// What a drill found: its last line, and whether its goal holds.
pub struct Verdict {
    pub line: String,
    pub holds: bool,
}

const DRILLS: &[(&str, &str)] = &[
    ("passthrough", "what /v1/chat/completions adds to an instant upstream: time, throughput, first token"),
    ("call", "an in-process call through the router, beside the bare provider"),
    ("startup", "from exec to ready, and memory at rest, of a remote-only manifest and of each distribution; the binary's size"),
    ("steps", "durable steps of a turn: one at a time and at 64 sessions, synced and not"),
    ("policy", "deciding on a call of a tool, with 50 policies and few or many arguments"),
    ("injection", "a model that obeys whatever others write, in 720 cases, under the Rule of Two: nothing forbidden is executed"),
    ("turn", "a turn with tool calls beside the same in LangGraph; 64 sessions at once; 1,000 open turns after a restart"),
    ("crash", "turns while the server is killed, at random and at every fail point: nothing lost, nothing twice (--postgres)"),
    ("replicas", "two replicas on one Postgres: restarted in turn under load, stopped and woken, and Postgres restarted under load"),
    ("crash-memory", "banks while the server is killed: what was acknowledged is found once, what was deleted stays away"),
    ("mutations", "requests with something wrong, for every route and RPC: no 500, no INTERNAL, no crash (--count; --long: a million)"),
    ("hostile", "slow heads and bodies, HTTP/2 rapid reset, windows of 0, 10,000 idle connections: what other clients notice"),
    ("overload", "five times the load that the server takes: what it still answers, how fast it refuses, when it is itself again"),
    ("soak", "turns, searches, chats, embeddings and files at half load for hours: memory, files, times (--hours; --long: 2)"),
    (
        "engine",
        "inline::llama-cpp beside a prebuilt llama.cpp; several answers at once, an agent's session, drafts; --long: from start to first token",
    ),
    ("embeddings", "texts a second of MiniLM, on candle and on llama.cpp, beside onnxruntime and sentence-transformers"),
    ("guard", "classifying 512 tokens with a model of Prompt Guard 2 22M's shape, beside transformers and onnxruntime"),
    (
        "shields",
        "what input shields add to the first token, before the model and beside it, and how much of a 20-turn session they judge again",
    ),
    ("mistralrs", "decode and prefill of inline::mistralrs, beside mistralrs used bare"),
    (
        "vectors",
        "inline::qdrant-edge: 100,000 vectors written, indexed and searched, beside exact search, faiss and sqlite-vec; --long: a million",
    ),
];

/// The command line.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let verdict = runtime.block_on(async {
        match args.name.as_str() {
            "passthrough" => Some(passthrough::run(args.long).await),
            "call" => Some(call::run(args.long).await),
            "startup" => Some(startup::run(args.long).await),
            "steps" => Some(steps::run(args.long).await),
            "policy" => Some(policy::run(args.long)),
            "injection" => Some(injection::run(args.long).await),
            "turn" => Some(turn::run(args.long).await),
            "crash" => Some(crash::run(args.long, args.postgres).await),
            "replicas" => Some(replicas::run(args.long).await),
            "mutations" => Some(mutations::run(args.long, args.count).await),
            "hostile" => Some(hostile::run(args.long).await),
            "overload" => Some(overload::run(args.long).await),
            "soak" => Some(soak::run(args.hours.unwrap_or(if args.long { 2.0 } else { 0.05 })).await),
            "crash-memory" => Some(crash_memory::run(args.long).await),
            #[cfg(feature = "engine")]
            "embeddings" => Some(embeddings::run(args.long).await),
            #[cfg(feature = "engine")]
            "engine" => Some(engine::run(args.long).await),
            #[cfg(feature = "engine")]
            "shields" => Some(shields::run(args.long).await),
            #[cfg(feature = "engine")]
            "guard" => Some(guard::run(args.long).await),
            #[cfg(feature = "engine")]
            "mistralrs" => Some(mistralrs::run(args.long).await),
            #[cfg(feature = "engine")]
            "vectors" => Some(vectors::run(args.long).await),
            _ => None,
        }
    });
    match verdict {
        Some(verdict) => {
            println!("{}", verdict.line);
            if verdict.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        None => {
            for (name, what) in DRILLS {
                println!("{name:<14} {what}");
            }
            if args.name == "list" { ExitCode::SUCCESS } else { ExitCode::from(2) }
        }
    }
}
