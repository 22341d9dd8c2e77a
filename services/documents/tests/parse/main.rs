//! Files of every kind, read by real processes; and files that mean harm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod files;
mod hostile;
mod kinds;
mod office;
mod pdf;

use llama_stack_core::{Code, Result};
use llama_stack_documents::{Limits, Parse as _, Parsed, Workers};

fn workers(limits: Limits) -> Workers {
    Workers::new(env!("CARGO_BIN_EXE_parse-worker"), &[], limits)
}

async fn read(name: &str, data: Vec<u8>) -> Result<Parsed> {
    workers(Limits::default()).parse(name, "", data.into()).await
}

fn told(read: Result<Parsed>) -> (Code, String) {
    match read {
        Ok(parsed) => panic!("it was read: {} blocks", parsed.blocks.len()),
        Err(error) => (error.code(), error.reason().unwrap_or_default().to_owned()),
    }
}

fn texts(parsed: &Parsed) -> Vec<&str> {
    parsed.blocks.iter().map(|block| block.text.as_str()).collect()
}
