//! `cargo drill NAME [--long]`. A benchmark target: `cargo test` neither runs nor links it.

use std::process::ExitCode;

fn main() -> ExitCode {
    llama_stack_drills::main()
}
