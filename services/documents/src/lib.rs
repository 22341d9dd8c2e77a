//! Documents: from a file's bytes to passages that can be searched and cited.
//!
//! ```text
//! bytes ─ Parse (a process of its own, bounded) ─ Parsed: blocks with page, lines, heading ─ chunk ─ Passage
//! ```

pub mod charset;
mod chunk;
mod failure;
pub mod html;
mod parse;
mod worker;

use llama_stack_core::Result;
use llama_stack_proto::v1::Position;

pub use chunk::{
    CountTokens, DEFAULT_MAX_CHUNK_TOKENS, DEFAULT_OVERLAP_TOKENS, Estimate, LINE_TOKENS, chunk, contextual, validate, whole_text,
};
#[doc(hidden)]
pub use parse::parse as read_here;
pub use worker::{InProcess, Limits, WORKER_VERB, Workers, parser, serve};

/// What a file says, in the order in which it says it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parsed {
    pub title: String,
    /// What it was read as, for example `text/markdown`.
    pub media_type: String,
    pub blocks: Vec<Block>,
}

/// A piece of a document that is never torn without need: a paragraph, a heading with its level, a table row, a function.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Block {
    pub text: String,
    /// From 1; 0 where there are no pages.
    pub page: u32,
    /// From 1, in the text of the file; 0 where it has no lines.
    pub line_start: u32,
    pub line_end: u32,
    /// The headings above it, outermost first, joined by ` > `.
    pub heading: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    #[default]
    Text,
    Heading,
    Table,
    Code,
}

/// Reads files.
#[async_trait::async_trait]
pub trait Parse: Send + Sync + 'static {
    /// `media_type` may be empty or wrong: what the bytes are decides, then the name, then what was said.
    ///
    /// # Errors
    /// `InvalidArgument` with the reason `unsupported_media_type`, `empty_file`, `malformed_file` or `encrypted_file` ·
    /// `OutOfRange` (`file_too_large`) and `ResourceExhausted` (`parser_limits`) where reading it would take more than
    /// it may.
    async fn parse(&self, filename: &str, media_type: &str, data: bytes::Bytes) -> Result<Parsed>;
}

/// A part of a document, as long as its strategy says, ready to be embedded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passage {
    pub text: String,
    pub position: Position,
}
