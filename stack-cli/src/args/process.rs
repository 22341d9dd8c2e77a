//! Verbs about the process on this machine.

use clap::Args;

use super::HomeArgs;

#[derive(Args)]
pub(crate) struct StopArgs {
    /// The name in its manifest; without it the one stack that runs
    pub(crate) name: Option<String>,
    /// Stop every stack of this home
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
    /// Seconds to wait for its end; it may be finishing turns
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The name in its manifest; without it the one whose log is newest
    pub(crate) name: Option<String>,
    /// Print at most so many lines, the newest
    #[arg(long, short = 'n', default_value_t = 100, value_name = "COUNT")]
    pub(crate) lines: usize,
    /// Go on with what is logged from now on, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only lines of this level or worse: error, warn, info, debug or trace
    #[arg(long, value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub(crate) level: Option<String>,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// A built-in distribution or a manifest file
    #[arg(default_value = "starter")]
    pub(crate) distribution: String,
    /// Read every model file and compare it with its hash
    #[arg(long)]
    pub(crate) deep: bool,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}
