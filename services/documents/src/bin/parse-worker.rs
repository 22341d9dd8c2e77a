//! Reads one file for whoever started it: what `llama-stack parse-worker` does, without the rest of that program.

use std::process::ExitCode;

fn main() -> ExitCode {
    llama_stack_documents::serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
