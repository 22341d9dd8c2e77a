//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod agent;
mod batch;
mod distribution;
mod file;
mod process;
mod provider;

pub(crate) use agent::{AgentArgs, AgentChatArgs, AgentRunArgs, AgentVerb, Approve, ToolVerb};
pub(crate) use batch::{BatchCreateArgs, BatchVerb};
pub(crate) use distribution::{DistributionVerb, InitArgs, MemoryChoice, ModelsChoice, ShieldChoice, ToolChoice};
pub(crate) use file::{FileVerb, ToArgs};
pub(crate) use process::{DoctorArgs, LogsArgs, StopArgs};
pub(crate) use provider::{Api, ApiVerb, CheckArgs, Language, NewArgs, ProviderVerb};

/// An agent platform in one file: inference, safety, memory, tools and agents over gRPC and the OpenAI API.
///
/// Exit codes: 0 done, 1 failed, 2 wrong input, 3 what was named is not there, 4 no answer.
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
    /// Stop a stack that runs on this machine, as Ctrl-C does
    Stop(StopArgs),
    /// Print what a stack of this machine has logged
    Logs(LogsArgs),
    /// Look for what keeps a distribution from running well, and say what to do
    Doctor(DoctorArgs),
    /// Look at distributions, write, compare and convert them
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
    /// Look at the agents of a running stack, and talk to them
    Agent {
        #[command(subcommand)]
        verb: AgentVerb,
    },
    /// Look at the tools of a running stack, and call them
    Tool {
        #[command(subcommand)]
        verb: ToolVerb,
    },
    /// Look at providers, check one of your own, begin a new one
    Provider {
        #[command(subcommand)]
        verb: ProviderVerb,
    },
    /// Read the gRPC contract
    Api {
        #[command(subcommand)]
        verb: ApiVerb,
    },
    /// Look at sessions, take them out as a file, run them again
    Session {
        #[command(subcommand)]
        verb: SessionVerb,
    },
    /// Send files to a running stack, look at them, fetch and delete them
    File {
        #[command(subcommand)]
        verb: FileVerb,
    },
    /// Have many requests run in the background, from a file
    Batch {
        #[command(subcommand)]
        verb: BatchVerb,
    },
    /// Look at the shields of a running stack, try them, and find their thresholds
    Shield {
        #[command(subcommand)]
        verb: ShieldVerb,
    },
    /// Look at what shields decided
    Safety {
        #[command(subcommand)]
        verb: SafetyVerb,
    },
    /// Make banks in a running stack, fill, search and move them
    Memory {
        #[command(subcommand)]
        verb: MemoryVerb,
    },
    /// Write all that a stack keeps into one archive, while it runs
    Backup(crate::backup::BackupArgs),
    /// Put an archive's database, banks and files in place, of a stack that does not run
    Restore(crate::backup::RestoreArgs),
    /// Delete all that a tenant, or one person of it, has in a running stack
    Erase(crate::backup::EraseArgs),
    /// Look after API keys
    Key {
        #[command(subcommand)]
        verb: crate::key::KeyVerb,
    },
    /// Check the policies of access and of tools, and ask those of access
    Policy {
        #[command(subcommand)]
        verb: crate::policy::PolicyVerb,
    },
    /// Look at what policies and shields decided about callers, newest first
    Audit(crate::audit::AuditArgs),
    /// Look at what turns did and how long that took, newest first: models, tools, shields
    Spans(crate::spans::SpansArgs),
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
    /// How log lines on standard error are written; those of the file in the home are text
    #[arg(long, env = "LLAMA_STACK_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Where models, state and logs live
    #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum ModelVerb {
    /// List the model files in the store; with --server the models of a running stack
    List {
        /// The stack to ask in place of the store
        #[arg(long, value_name = "URL")]
        server: Option<String>,
        #[command(flatten)]
        home: HomeArgs,
    },
    /// Fetch a model of the built-in distributions, or all models of a manifest
    Pull {
        /// A model's id, a distribution or a manifest file
        model: String,
        #[command(flatten)]
        home: HomeArgs,
    },
    /// Show what a running stack says of a model; where none answers, what the built-in distributions do
    Show {
        /// The model's id
        model: String,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        home: HomeArgs,
    },
    /// Show what a model of a running stack really reads: a conversation as its template renders it
    PromptFormat {
        /// The model's id
        model: String,
        /// What the user says
        #[arg(long, default_value = "What is the weather in Oslo?")]
        text: String,
        /// A system message
        #[arg(long)]
        system: Option<String>,
        /// With a tool that was called and has answered
        #[arg(long)]
        tools: bool,
        #[command(flatten)]
        server: ServerArgs,
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

#[derive(Subcommand)]
pub(crate) enum SessionVerb {
    /// List sessions, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print a session's turns: what was said and what was called
    Show {
        session: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Write a session with all its turns as JSON
    Export {
        session: String,
        /// Where to; standard output without it
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Run an exported session again, in a new session, and say what comes out differently
    Replay(ReplayArgs),
}

#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// What `session export` wrote; `-` is standard input
    pub(crate) file: PathBuf,
    /// Another model in place of the recorded one
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// Call tools again; without it their answers come from the recording
    #[arg(long)]
    pub(crate) live_tools: bool,
    /// Fail where a turn comes out differently
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Subcommand)]
pub(crate) enum MemoryVerb {
    /// List banks: what they hold, where, and how much of it is indexed
    Banks(ServerArgs),
    /// Make a bank
    Create {
        name: String,
        #[arg(long, value_enum, default_value = "vector")]
        kind: BankChoice,
        /// The memory provider, by its id in the manifest; else the first
        #[arg(long)]
        provider: Option<String>,
        /// The model that makes the vectors; else the provider's
        #[arg(long)]
        embedding_model: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Read files into a bank; one that is there under the same path is replaced
    Add {
        /// The bank's id, or a vector store's
        bank: String,
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Search a bank
    Search {
        /// The bank's id, or a vector store's
        bank: String,
        text: String,
        /// How many chunks
        #[arg(long, default_value_t = 5)]
        top: u32,
        /// Which so many of them: 2 for those after the first, up to the 1,000th chunk
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        page: u32,
        /// By meaning, by words, or by both; else by both where the bank can
        #[arg(long, value_enum)]
        mode: Option<ModeChoice>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Copy banks from one provider to another and compare them; run it again to go on after a break
    Migrate {
        /// The provider that has them, by its id in the manifest
        #[arg(long)]
        from: String,
        /// The provider that gets them
        #[arg(long)]
        to: String,
        /// Only this bank
        #[arg(long, value_name = "ID")]
        bank: Option<String>,
        /// Delete each original once its copy was found to be the same
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BankChoice {
    Vector,
    Keyword,
    KeyValue,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ModeChoice {
    Vector,
    Keyword,
    Hybrid,
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

#[derive(Subcommand)]
pub(crate) enum ShieldVerb {
    /// List the shields, with their categories
    List(ServerArgs),
    /// Judge a text
    Test(ShieldTestArgs),
    /// Find the threshold for a rate of false positives, from labelled texts
    Calibrate(CalibrateArgs),
}

#[derive(Args)]
pub(crate) struct ShieldTestArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    pub(crate) shield: String,
    /// What to judge; `-`, or nothing: standard input
    pub(crate) text: Option<String>,
    /// Where in a turn it would stand
    #[arg(long, value_enum, default_value_t = Stage::Input)]
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Stage {
    Input,
    ToolArguments,
    ToolResult,
    Retrieved,
    Output,
}

#[derive(Args)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    pub(crate) shield: String,
    /// A JSON object per line: `{"text": "…", "unsafe": true}`
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Most false positives, as a share of the safe texts
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    pub(crate) fpr: f64,
    #[arg(long, value_enum, default_value_t = Stage::Input)]
    pub(crate) stage: Stage,
}

#[derive(Subcommand)]
pub(crate) enum SafetyVerb {
    /// Ask the shields again for every verdict in a session's journal, and show which differ
    Audit {
        #[command(flatten)]
        server: ServerArgs,
        session: String,
    },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::error::ErrorKind;

    use super::*;

    /// Words as a shell takes them, as far as the pages go.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for c in line.chars() {
            match quote {
                Some(open) if c == open => quote = None,
                Some(_) => word.get_or_insert_default().push(c),
                None if c == '"' || c == '\'' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                None if c.is_whitespace() => words.extend(word.take()),
                None => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    /// What a page has people type: lines of its blocks, and code within its text.
    fn commands(page: &str) -> Vec<String> {
        let (mut found, mut block) = (Vec::new(), false);
        for line in page.lines() {
            if line.starts_with("```") {
                block = !block;
                continue;
            }
            let pieces: Vec<&str> = if block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
            for piece in pieces {
                let built = piece.split_once("cargo run --release -- ").map(|(_, rest)| rest);
                let Some(rest) = piece.strip_prefix("llama-stack ").or(built) else { continue };
                let end = [" #", " > ", " | "].iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
                found.push(rest[..end].to_owned());
            }
        }
        found
    }

    #[test]
    fn what_the_pages_have_people_type_is_understood() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let docs = std::fs::read_dir(repository.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
        let others = ["README.md", "examples/README.md", "packaging/README.md"].map(|page| repository.join(page));
        let (mut wrong, mut read) = (Vec::new(), 0);
        for page in pages.chain(others) {
            for command in commands(&std::fs::read_to_string(&page).unwrap()) {
                let words = words(&command);
                if words.first().is_some_and(|verb| verb == "help") {
                    continue;
                }
                read += 1;
                // A verb may be named without what it wants.
                let understood = |error: &clap::Error| {
                    matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
                };
                let parsed = Cli::try_parse_from(std::iter::once("llama-stack".to_owned()).chain(words));
                if let Some(error) = parsed.err().filter(|error| !understood(error)) {
                    wrong.push(format!("{}: {command}: {error}", page.display()));
                }
            }
        }
        assert!(read > 50, "only {read} commands were found");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
