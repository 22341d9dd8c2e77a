//! `inline::llama-cpp` beside llama.cpp as its users get it, and beside itself: alone and together, with and without what
//! it remembers.
//!
//! ```text
//! speed     prefill and decode on the same file                                      goal: ≥ 0.97 of a prebuilt llama.cpp
//! together  1, 2, 4 and 8 answers at once              4: ≥ 1.8 times the tokens of one; the slowest ≥ 0.5 of the mean
//! session   20 turns of an agent                    hits ≥ 0.95; first token of turn 20 within 1.5 times that of turn 2
//! drafts    tool arguments that repeat the prompt
//! start     from `llama-stack run` to the first token, and memory                                              (--long)
//! ```

use crate::{Verdict, python::Python};

pub(crate) mod answer;
mod drafts;
mod peer;
mod session;
mod speed;
mod start;
mod together;

pub(crate) async fn run(long: bool) -> Verdict {
    println!("{} cores, load {}\n", cores(), std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    let python = Python::new();
    python.install_llama_cpp();
    let speed = speed::run(&python, long).await;
    let together = together::run(&python, long).await;
    let session = session::run(long).await;
    drafts::run(long).await;
    if long {
        start::run().await;
    }
    Verdict {
        line: format!(
            "engine: prefill ratio {:.2}, decode ratio {:.2}, batch4 {:.2}, hits {:.2}, ttft20/2 {:.2}",
            speed.prefill, speed.decode, together.batch4, session.hits, session.growth
        ),
        holds: speed.prefill >= 0.97
            && speed.decode >= 0.97
            && together.batch4 >= 1.8
            && together.slowest >= 0.5
            && session.hits >= 0.95
            && session.growth <= 1.5,
    }
}

/// All of them, where the engine's default leaves one to the server.
fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}
