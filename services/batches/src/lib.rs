//! Batches: many requests in one file, run in the background between interactive ones.
//!
//! ```text
//! CreateBatch ─ row (validating) ─ claim, under a lease ─┬─ check     every line, before any is run
//!                                                        ├─ run       Ask, some lines at once; each answer is a row
//!                                                        └─ finish    answers in order ─> output file, error file
//! cancel, expiry ─ what has not begun is not run ────────┘
//! crash ─ another process claims it: lines whose answer is a row are not run again
//! ```
//!
//! A line asks an HTTP path of this stack, as its owner, with the priority of batches. Who answers is behind [`Ask`].

mod author;
mod check;
mod finish;
mod input;
mod job;
mod run;
mod runner;
mod service;
mod used;

use std::time::Duration;

use bytes::Bytes;
use llama_stack_core::Context;

pub use runner::Batcher;

/// The paths that a batch may ask.
pub const ENDPOINTS: [&str; 5] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations"];

/// Answers requests as the HTTP port does.
#[async_trait::async_trait]
pub trait Ask: Send + Sync + 'static {
    /// A failure is an answer as well.
    async fn ask(&self, cx: &Context, endpoint: &str, body: Bytes) -> Answer;
}

/// What a request was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    pub request_id: String,
    pub body: serde_json::Value,
    /// When to come back, where there was no room.
    pub retry_after: Option<Duration>,
}
