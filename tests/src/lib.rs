//! What tests share: promises of the traits as functions, a model whose words are fixed, a stack on a free port.
//!
//! ```text
//! collector     takes what is exported by OTLP, and keeps it
//! conformance/  one async fn per promise, given any Arc<dyn Trait>; run in process and again over a socket
//! guard         a guard that judges by words, as an Inference and as an OpenAI-compatible server
//! s3            a server that speaks as S3 does, as much of it as files need
//! scripted      an Inference that says what it is told: for tests in which the model's words must be fixed
//! worded        an embedding model that knows words by their letters: for tests of memory
//! served        puts a trait on a free port and hands back its client
//! venv          programs that come as Python packages
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod collector;
pub mod conformance;
pub mod guard;
pub mod s3;
pub mod scripted;
pub mod served;
pub mod venv;
pub mod worded;
