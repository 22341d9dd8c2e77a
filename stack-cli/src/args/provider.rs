//! Verbs about providers and the contract that they keep.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ServerArgs;

#[derive(Subcommand)]
pub(crate) enum ProviderVerb {
    /// List the providers of a running stack, and whether they answer
    List {
        /// Only this API
        #[arg(long, value_enum)]
        api: Option<Api>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one provider of a running stack, and what it brings
    Show {
        /// Its id in the manifest, or API/ID where two APIs have it
        provider: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the provider types that this build can run
    Types,
    /// Ask a provider that speaks gRPC for what the contract promises, and report what it keeps
    Check(CheckArgs),
    /// Write the beginnings of a provider of your own: program, contract, test, and the manifest's line
    New(NewArgs),
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Where it listens, for example http://127.0.0.1:9000
    pub(crate) url: String,
    /// Only this API; without it all that it serves
    #[arg(long, value_enum)]
    pub(crate) api: Option<Api>,
    /// The model that is asked, by its id; without it the first that chats, and the first that embeds
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Seconds that one answer may take
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

#[derive(Args)]
pub(crate) struct NewArgs {
    #[arg(value_enum)]
    pub(crate) api: Api,
    /// Its id: letters, digits and -
    pub(crate) name: String,
    #[arg(long, short, value_enum, default_value_t = Language::Python)]
    pub(crate) language: Language,
    /// The folder to make; default: the name
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum ApiVerb {
    /// List the services of the contract and their methods
    List,
    /// Show a service, a method (Inference.Chat), a message or an enum, with what the contract says of it
    Describe { name: String },
}

/// The services that providers implement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    Inference,
    Safety,
    Memory,
    Tools,
}

impl Api {
    /// As manifests write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Safety => "safety",
            Self::Memory => "memory",
            Self::Tools => "tools",
        }
    }

    /// As the contract calls its service.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Inference => "Inference",
            Self::Safety => "Safety",
            Self::Memory => "Memory",
            Self::Tools => "Tools",
        }
    }
}

/// What a scaffold is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Python,
    Rust,
    #[value(alias = "ts")]
    Typescript,
    Go,
}
