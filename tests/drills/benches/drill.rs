//! `cargo drill NAME [--long]`. A benchmark target: `cargo test` neither runs nor links it.

use std::process::ExitCode;

/// As the binary has it: some drills measure the memory of what they do in this process.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    llama_stack_drills::main()
}
