//! How text that others wrote reaches the model.

/// Where the first untrusted text of a task comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// What a tool answers.
    Result,
    /// The second part of it.
    SecondPart,
    /// A tool's own failure.
    ToolError,
    /// A passage of a document that a search found.
    Retrieved,
    /// It was read in the turn before this one.
    EarlierTurn,
    /// It was read in the turn before this one, of which only a summary is left, in the model's own words.
    Summary,
    /// Another agent has read it, and answers with it.
    CalledAgent,
    /// Another agent has read it, and hands the turn over.
    Handoff,
    /// A tool of the client's.
    ClientTool,
    /// A stranger's MCP server.
    McpServer,
}

pub const CHANNELS: [Channel; 10] = [
    Channel::Result,
    Channel::SecondPart,
    Channel::ToolError,
    Channel::Retrieved,
    Channel::EarlierTurn,
    Channel::Summary,
    Channel::CalledAgent,
    Channel::Handoff,
    Channel::ClientTool,
    Channel::McpServer,
];
