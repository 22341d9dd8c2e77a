//! Verbs about agents and their tools.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ServerArgs;

#[derive(Subcommand)]
pub(crate) enum ToolVerb {
    /// List the tools, with their arguments and what they may do
    List(ServerArgs),
    /// Call a tool as an agent would, without asking a policy
    Call {
        tool: String,
        /// A JSON object, or NAME=VALUE; a VALUE that is JSON is taken as such
        arguments: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Subcommand)]
pub(crate) enum AgentVerb {
    /// List the agents
    List(ServerArgs),
    /// Print an agent's configuration as JSON
    Show {
        agent: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Keep a new agent
    Create {
        /// Its configuration, as `agent show` prints one; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Replace an agent's configuration; turns that run keep theirs
    Update {
        agent: String,
        /// As `agent show` prints one; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete an agent; its sessions stay readable
    Delete {
        agent: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Run one turn and print what happens in it
    Run(AgentRunArgs),
    /// Talk to an agent, turn by turn, in one session
    Chat(AgentChatArgs),
}

/// Who answers: an agent of the stack, or one that is made up here.
#[derive(Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The agent's id; without it one is made of the options that follow
    #[arg(long, short)]
    pub(crate) agent: Option<String>,
    /// Its model; without it the first chat model of the stack
    #[arg(long, short, conflicts_with = "agent")]
    pub(crate) model: Option<String>,
    /// Its instructions
    #[arg(long, conflicts_with = "agent")]
    pub(crate) instructions: Option<String>,
    /// A tool that it may call; may be given several times
    #[arg(long, short, value_name = "NAME", conflicts_with = "agent")]
    pub(crate) tool: Vec<String>,
    /// Ask before each call of this tool; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with = "agent")]
    pub(crate) require_approval: Vec<String>,
    /// Longest answer of a step, in tokens
    #[arg(long, value_name = "TOKENS", conflicts_with = "agent")]
    pub(crate) max_tokens: Option<u32>,
    /// A session to go on with
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// A turn to go on after, in place of its session's newest: the session branches there
    #[arg(long, value_name = "TURN", conflicts_with = "session")]
    pub(crate) after: Option<String>,
    /// What to say to calls that wait for a person
    #[arg(long, value_enum, default_value_t = Approve::Ask)]
    pub(crate) approve: Approve,
}

#[derive(Args)]
pub(crate) struct AgentRunArgs {
    /// What to say; standard input without it
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Args)]
pub(crate) struct AgentChatArgs {
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// How calls that wait for a person are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Approve {
    /// On the terminal
    Ask,
    /// Each runs
    All,
    /// None runs
    None,
}
