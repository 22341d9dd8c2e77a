//! Every target on its corpus, and on mutations of it that are the same each time. `LLAMA_STACK_FUZZ_ROUNDS` multiplies them,
//! `LLAMA_STACK_FUZZ_SEED` chooses others, and with `LLAMA_STACK_FUZZ_SECONDS` each target goes on with more for at least so long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use llama_stack_fuzz_targets::{TARGETS, Target, mutate::Mutator};

/// For one input, on the busiest machine: what takes longer does not come to an end.
const PATIENCE: Duration = Duration::from_secs(60);
/// What takes longer is named.
const SLOW: Duration = Duration::from_secs(1);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("corpus").join(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |value| value.parse().unwrap())
}

/// Runs one target to its end, on a thread with the stack that requests have, and says which input it was that broke it.
fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = corpus(target);
    let seed = number("LLAMA_STACK_FUZZ_SEED", 1);
    let mut mutator = Mutator::new(seed, seeds.clone());
    let mut rounds = u64::from(target.rounds) * number("LLAMA_STACK_FUZZ_ROUNDS", 1);
    let (sender, inputs) = mpsc::sync_channel::<Vec<u8>>(0);
    let (done, ended) = mpsc::channel();
    let run = target.run;
    let worker = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for input in inputs {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&input)));
            if done.send((input, outcome)).is_err() {
                return;
            }
        }
    });
    let worker = worker.unwrap();
    let until = Instant::now() + Duration::from_secs(number("LLAMA_STACK_FUZZ_SECONDS", 0));
    let mutations = std::iter::from_fn(|| {
        let goes_on = rounds > 0 || Instant::now() < until;
        rounds = rounds.saturating_sub(1);
        goes_on.then(|| mutator.next_input())
    });
    for (at, input) in (1_u64..).zip(seeds.into_iter().chain(mutations)) {
        let begun = Instant::now();
        sender.send(input.clone()).unwrap();
        match ended.recv_timeout(PATIENCE) {
            // To be looked at by whoever runs this by hand: it may be the beginning of something quadratic.
            Ok((input, Ok(()))) if begun.elapsed() > SLOW => {
                eprintln!("{name} takes {:?} for {} bytes: {}", begun.elapsed(), input.len(), kept(name, &input));
            }
            Ok((_, Ok(()))) => {}
            Ok((input, Err(panic))) => {
                eprintln!("{name} breaks on {} bytes, input {at} of the seed {seed}: {}", input.len(), kept(name, &input));
                resume_unwind(panic);
            }
            Err(_) => panic!("{name} does not come back from {} bytes, input {at} of the seed {seed}: {}", input.len(), kept(name, &input)),
        }
    }
    drop(sender);
    worker.join().unwrap();
}

/// Keeps an input that broke something, for whoever mends it and puts it into the corpus.
fn kept(name: &str, input: &[u8]) -> String {
    let file = std::env::temp_dir().join(format!("llama-stack-fuzz-{name}-{}", std::process::id()));
    fs::write(&file, input).unwrap();
    file.display().to_string()
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*

        /// The list above, the table of targets, their folders and their programs are one list.
        #[test]
        fn every_target_is_fuzzed_both_ways() {
            let listed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), listed);
            for name in listed {
                assert!(root().join("fuzz_targets").join(format!("{name}.rs")).is_file(), "{name} has no program in fuzz/");
            }
        }
    };
}

targets!(sse, answers, tool_calls, mcp, manifest, multipart, filters, filter_messages, cursors, gguf, documents, office, forwarded);
