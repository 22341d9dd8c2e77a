//! Verbs about files that a stack keeps.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ServerArgs;

#[derive(Subcommand)]
pub(crate) enum FileVerb {
    /// Send files to a running stack
    Upload {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// What they are for: assistants, batch, fine-tune, vision, user_data or evals
        #[arg(long, default_value = "user_data")]
        purpose: String,
        /// How many days they are kept; without it for ever
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=30))]
        days: Option<u64>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List files, newest first
    List {
        /// Only those for this purpose
        #[arg(long, default_value = "")]
        purpose: String,
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show what a stack knows of a file
    Show {
        /// The file's id
        file: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Fetch a file's content
    Download {
        /// The file's id
        file: String,
        #[command(flatten)]
        to: ToArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a file, and what banks have read of it
    Delete {
        /// The file's id
        file: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Where content goes.
#[derive(Args)]
pub(crate) struct ToArgs {
    /// Where to; standard output without it
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}
