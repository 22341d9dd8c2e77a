//! What is fuzzed: each target takes bytes, hands them to a reader of the stack, and fails where a promise of that reader does.
//!
//! ```text
//! fuzz/corpus/NAME ─┬─ tests/targets.rs   seeds and seeded mutations of them, a minute with every change
//!                   └─ fuzz/run           libFuzzer with coverage, as long as one likes
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a target fails by panicking")]

mod files;
pub mod mutate;
mod requests;
mod streams;

/// One reader.
pub struct Target {
    /// Of its folder in `fuzz/corpus`, and of its program in `fuzz/`.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Mutations in the short form.
    pub rounds: u32,
}

/// All there are.
pub const TARGETS: &[Target] = &[
    Target { name: "sse", run: streams::sse, rounds: 6_000 },
    Target { name: "answers", run: streams::answers, rounds: 6_000 },
    Target { name: "tool_calls", run: streams::tool_calls, rounds: 6_000 },
    Target { name: "mcp", run: streams::mcp, rounds: 4_000 },
    Target { name: "manifest", run: requests::manifest, rounds: 1_500 },
    Target { name: "multipart", run: requests::multipart, rounds: 3_000 },
    Target { name: "filters", run: requests::filters, rounds: 6_000 },
    Target { name: "filter_messages", run: requests::filter_messages, rounds: 6_000 },
    Target { name: "cursors", run: requests::cursors, rounds: 6_000 },
    Target { name: "gguf", run: files::gguf, rounds: 6_000 },
    Target { name: "documents", run: files::documents, rounds: 1_500 },
    Target { name: "office", run: files::office, rounds: 600 },
    Target { name: "forwarded", run: requests::forwarded, rounds: 6_000 },
];

/// Runs the target of this name: all that a program in `fuzz/` does.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(data);
}
