//! Verbs about batches.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use llama_stack_batches::ENDPOINTS;

use super::{ServerArgs, ToArgs};

#[derive(Subcommand)]
pub(crate) enum BatchVerb {
    /// Have the requests of a file run in the background, and print the batch's id
    Create(BatchCreateArgs),
    /// List batches, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show how far a batch is, what it used and what is wrong with it
    Show {
        /// The batch's id
        batch: String,
        /// Wait for its end; ends with 1 where that is not `completed`
        #[arg(long, short)]
        watch: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End a batch: what has not begun is not run
    Cancel {
        /// The batch's id
        batch: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Fetch the answers of a batch that has ended, a line of JSON each
    Results {
        /// The batch's id
        batch: String,
        /// What was refused, failed or not run in place of what was answered
        #[arg(long)]
        errors: bool,
        #[command(flatten)]
        to: ToArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Args)]
pub(crate) struct BatchCreateArgs {
    /// A file with a request in JSON on each line (custom_id, method, url, body), or the id of one that the stack has
    pub(crate) file: PathBuf,
    /// What every line asks
    #[arg(long, value_parser = ENDPOINTS)]
    pub(crate) endpoint: String,
    /// How long it may take, 1h to 168h
    #[arg(long, default_value = "24h", value_name = "HOURS")]
    pub(crate) window: String,
    /// To find it again by; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) metadata: Vec<String>,
    /// How many days its output is kept; without it for ever
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=30))]
    pub(crate) output_days: Option<u64>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
