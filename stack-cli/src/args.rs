//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// An agent platform in one file: inference, safety, memory, tools and agents over gRPC and the OpenAI API.
///
/// Exit codes: 0 done, 1 failed, 2 wrong input, 3 not found, 4 not reachable.
#[derive(Parser)]
#[command(name = "llama-stack", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Start a distribution and serve until stopped
    Run(RunArgs),
    /// Look at distributions
    Distribution {
        #[command(subcommand)]
        verb: DistributionVerb,
    },
    /// Look after the model files on this machine
    Model {
        #[command(subcommand)]
        verb: ModelVerb,
    },
    /// Show what a running stack runs: its models, their engines, memory and queues
    Ps(ServerArgs),
    /// Talk to a model of a running stack; reads a question from a pipe as well
    Chat(ChatArgs),
    /// Print version and build
    Version,
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Read one file for a running stack, which speaks on the standard input
    #[command(name = llama_stack_documents::WORKER_VERB, hide = true)]
    ParseWorker,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// A built-in distribution (see `distribution list`) or a manifest file
    pub(crate) distribution: String,
    /// Address to listen on, for example 127.0.0.1:8321; overrides the manifest
    #[arg(long, value_name = "ADDR", conflicts_with = "port")]
    pub(crate) listen: Option<String>,
    /// Port to listen on, on the manifest's address; 0 takes a free one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Where models, state and logs live
    #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum DistributionVerb {
    /// List the built-in distributions
    List,
    /// Print a manifest
    Show { distribution: String },
    /// Do everything that `run` does, but listen
    Check {
        distribution: String,
        #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
        home: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(crate) enum ModelVerb {
    /// List the model files in the store
    List(HomeArgs),
    /// Fetch a model of the built-in distributions, or all models of a manifest
    Pull {
        /// A model's id, a distribution or a manifest file
        model: String,
        #[command(flatten)]
        home: HomeArgs,
    },
    /// Compare stored files with their hashes
    Verify {
        /// A file's name; all without it
        file: Option<String>,
        #[command(flatten)]
        home: HomeArgs,
    },
    /// Delete a file from the store
    Remove {
        file: String,
        #[command(flatten)]
        home: HomeArgs,
    },
}

#[derive(Args)]
pub(crate) struct HomeArgs {
    /// Where models, state and logs live
    #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The stack to talk to
    #[arg(long, env = "LLAMA_STACK_SERVER", default_value = "http://127.0.0.1:8321", value_name = "URL")]
    pub(crate) server: String,
}

#[derive(Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The model; without it the first chat model of the stack
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// A system message
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_tokens: Option<u32>,
}
