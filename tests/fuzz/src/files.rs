//! Files that others made.

use std::panic::{AssertUnwindSafe, catch_unwind};

use llama_stack_core::Code;
use llama_stack_documents::read_here;

/// Of text, out of a file: more is refused.
const TEXT: usize = 1 << 20;

/// A header is read or refused, and what it says of sizes is not beyond what was given.
pub(crate) fn gguf(data: &[u8]) {
    match llama_stack_models::gguf::inspect_bytes(data) {
        Ok(info) => assert!(info.file_size == data.len() as u64 && info.tensor_bytes <= u64::from(u32::MAX) * data.len() as u64),
        Err(error) => assert!(matches!(error.code(), Code::InvalidArgument | Code::DataLoss), "{error:?}"),
    }
}

/// What files of text are called. The first byte of the data chooses.
const NAMES: [&str; 9] = ["a.txt", "a.md", "a.html", "a.json", "a.jsonl", "a.csv", "a.rs", "a.tsv", "a"];

/// Text of every kind, and DOCX: read by code of this project, which never panics.
pub(crate) fn documents(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    read(NAMES[usize::from(*kind) % NAMES.len()], data);
}

/// PDF and sheets: read by others' code, which may panic, in a process that may then end.
pub(crate) fn office(data: &[u8]) {
    // A panic is an answer here; to take all memory, or never to come back, is not.
    let _ = catch_unwind(AssertUnwindSafe(|| read("a.pdf", data)));
}

fn read(name: &str, data: &[u8]) {
    match read_here(name, "", data, TEXT) {
        Ok(parsed) => {
            assert!(!parsed.blocks.is_empty(), "what is read holds text");
            assert!(parsed.blocks.iter().map(|block| block.text.len()).sum::<usize>() <= 2 * TEXT);
            assert!(parsed.blocks.iter().all(|block| block.line_start <= block.line_end), "lines are in order");
        }
        Err(error) => assert!(
            matches!(error.code(), Code::InvalidArgument | Code::TooLarge | Code::ResourceExhausted),
            "a bad file is its sender's: {error:?}"
        ),
    }
}
