//! Verbs about manifests.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(crate) enum DistributionVerb {
    /// List the built-in distributions
    List,
    /// Print a manifest; with --json as JSON
    Show { distribution: String },
    /// Print the JSON Schema of manifests, for editors
    Schema,
    /// Do everything that `run` does, but listen
    Check {
        distribution: String,
        #[arg(long, env = "LLAMA_STACK_HOME", value_name = "DIR")]
        home: Option<PathBuf>,
    },
    /// Write a manifest of your own: asks on a terminal, takes options in a script
    Init(InitArgs),
    /// Say what one manifest has that another has not, by meaning rather than by line
    Diff {
        /// A built-in distribution or a manifest file
        a: String,
        /// Another one
        b: String,
        /// Compare line by line instead
        #[arg(long)]
        text: bool,
        /// End with 1 where they differ
        #[arg(long)]
        exit_code: bool,
    },
    /// Turn a `run.yaml` of Meta's Llama Stack into a manifest, and list what has no place in one
    Import {
        /// The run.yaml; `-` is standard input
        file: PathBuf,
        /// Where to write the manifest; standard output without it
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
}

/// What the wizard asks for; what is given here it does not ask.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// The file to write; `-` is standard output
    #[arg(default_value = "llama-stack.yaml")]
    pub(crate) file: PathBuf,
    /// The distribution's name, 1 to 64 of a-z, 0-9 and -
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where models run
    #[arg(long, value_enum)]
    pub(crate) models: Option<ModelsChoice>,
    /// With `--models remote` or `grpc`: the server
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// With `--models remote`: the environment variable that holds the key
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_variable: Option<String>,
    /// The port to listen on, on this machine alone
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Where documents and search are kept
    #[arg(long, value_enum)]
    pub(crate) memory: Option<MemoryChoice>,
    /// What judges texts; several by comma
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) shields: Option<Vec<ShieldChoice>>,
    /// What agents may call; several by comma
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) tools: Option<Vec<ToolChoice>>,
    /// Ask nothing: defaults for what is not given
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Where models run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelsChoice {
    /// Qwen2.5-Coder-0.5B and MiniLM in this process, 580 MB
    Starter,
    /// SmolLM2-135M in this process, 98 MB
    Tiny,
    /// Any OpenAI-compatible server
    Remote,
    /// Another stack, over gRPC
    Grpc,
}

/// Where documents are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemoryChoice {
    /// One file beside the database
    Sqlite,
    /// No banks
    None,
}

/// Shields that need no model of their own beyond what the choice of models brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShieldChoice {
    /// Attempts to override instructions, by an embedding model
    Injection,
    /// Personal data, taken out of the text
    Pii,
    /// Dangerous code in answers
    Code,
    /// Hidden and confusable characters
    Unicode,
    None,
}

/// Tools that come with the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToolChoice {
    /// Calculator and clock
    Builtin,
    /// Search in banks; remember and recall
    Memory,
    /// Fetch pages of the public internet
    Fetch,
    None,
}
