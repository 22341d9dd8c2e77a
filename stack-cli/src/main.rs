//! `llama-stack`: the one binary.
//!
//! ```text
//! main ── clap ──> a verb (one file each) ──> server | models | gRPC client
//!                      └─ output: the only place that prints
//! ```

mod agent;
mod api;
mod args;
mod audit;
mod backup;
mod batch;
mod caller;
mod chat;
mod distribution;
mod doctor;
mod draft;
mod file;
mod home;
mod key;
mod lines;
mod log_file;
mod logs;
mod memory;
mod model;
mod named;
mod output;
mod policy;
mod processor;
mod proto_json;
mod provider;
mod ps;
mod reach;
mod registry;
mod run;
mod running;
mod safety;
mod session;
mod shield;
mod spans;
mod stop;
mod table;
mod tool;
mod version;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use output::Output;

#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if let Err(sentence) = processor::check() {
        return Output::default().fatal(sentence);
    }
    let cli = Cli::parse();
    if let Verb::ParseWorker = cli.verb {
        // No threads, no logs: it reads one file and ends.
        return llama_stack_documents::serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let output = Output::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fatal(&format!("the async runtime could not start: {error}")),
    };
    let result = runtime.block_on(async {
        outlive_file_limits();
        match cli.verb {
            Verb::Run(args) => run::run(args, &output).await,
            Verb::Stop(args) => stop::run(args, &output).await,
            Verb::Logs(args) => logs::run(args, &output).await,
            Verb::Doctor(args) => doctor::run(args, &output).await,
            Verb::Agent { verb } => agent::run(verb, &output).await,
            Verb::Tool { verb } => tool::run(verb, &output).await,
            Verb::Provider { verb } => provider::run(verb, &output).await,
            Verb::Api { verb } => api::run(verb, &output),
            Verb::Distribution { verb } => distribution::run(verb, &output).await,
            Verb::Model { verb } => model::run(verb, &output).await,
            Verb::Ps(args) => ps::run(args, &output).await,
            Verb::Chat(args) => chat::run(args, &output).await,
            Verb::Session { verb } => session::run(verb, &output).await,
            Verb::File { verb } => file::run(verb, &output).await,
            Verb::Batch { verb } => batch::run(verb, &output).await,
            Verb::Shield { verb } => shield::run(verb, &output).await,
            Verb::Safety { verb } => safety::run(verb, &output).await,
            Verb::Memory { verb } => memory::run(verb, &output).await,
            Verb::Backup(args) => backup::run(args, &output).await,
            Verb::Restore(args) => backup::restore(args, &output).await,
            Verb::Erase(args) => backup::erase(args, &output).await,
            Verb::Key { verb } => key::run(verb, &output).await,
            Verb::Policy { verb } => policy::run(verb, &output),
            Verb::Audit(args) => audit::run(args, &output).await,
            Verb::Spans(args) => spans::run(args, &output).await,
            Verb::Version => version::run(&output),
            Verb::Completions { shell } => output.completions(shell),
            Verb::ParseWorker => Ok(()),
        }
    });
    // A blocking read of the terminal must not keep a finished program alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure(&error),
    }
}

/// A write beyond the size that a file may have (`ulimit -f`) comes with a signal whose default is the end of the process, so that
/// one caller's upload would end everybody's server. Once somebody listens, the write fails, and that is all.
#[cfg(unix)]
fn outlive_file_limits() {
    use tokio::signal::unix::{SignalKind, signal};

    /// On Linux and macOS, on the processors that this is built for.
    const SIGXFSZ: i32 = 25;
    if let Err(error) = signal(SignalKind::from_raw(SIGXFSZ)) {
        tracing::debug!(%error, "a file that grows too large would end this program");
    }
}

#[cfg(not(unix))]
fn outlive_file_limits() {}
