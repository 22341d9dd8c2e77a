//! Tools: what a model may have done in the world.
//!
//! ```text
//! InvokeTool ─ router ─┬─ builtin ──── calculator, clock
//!   checks arguments   ├─ RustTools ── anything that implements `Tool`
//!         │            ├─ remote ───── another process, in any language, by gRPC
//!         │            ├─ memory ───── banks: knowledge_search, remember, recall, forget
//!         │            ├─ mcp ──────── a server of the Model Context Protocol
//!         │            └─ http_fetch, web_search, wolfram_alpha ── egress ── the web
//!         └ groups: what tenants registered while the stack runs
//! ```
//!
//! What a model or a tool gets wrong is an answer with `is_error`, in words that let the model do better. An `Err` is
//! the platform's failure.

use llama_stack_core::{Registry, Result};
use llama_stack_proto::v1::{self, InvokeToolResponse, ListToolsRequest, ListToolsResponse, Part, ToolDefinition};

mod arguments;
mod builtin;
mod groups;
mod http_fetch;
mod kept;
pub mod mcp;
mod memory;
mod remote;
mod router;
mod rust;
mod service;
mod timeout;
mod web_search;
mod wolfram_alpha;

pub use groups::Groups;
pub use router::Router;
pub use rust::{RustTools, Tool, ToolFailure};

pub fn register(registry: &mut Registry) {
    registry.tools.add("inline::builtin", builtin::build);
    registry.tools.add("inline::http-fetch", http_fetch::build);
    registry.tools.add("inline::memory", memory::build);
    registry.tools.add("remote::grpc", remote::build);
    registry.tools.add("remote::brave-search", web_search::brave::build);
    registry.tools.add("remote::tavily-search", web_search::tavily::build);
    registry.tools.add("remote::exa-search", web_search::exa::build);
    registry.tools.add("remote::searxng", web_search::searxng::build);
    registry.tools.add("remote::wolfram-alpha", wolfram_alpha::build);
    registry.tools.add("remote::mcp", mcp::build);
}

/// Largest answer that a tool may give.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Whether a tool can be offered: its name, and its parameters.
///
/// # Errors
/// `InvalidArgument` on `name` or `parameters`.
pub fn check_definition(definition: &ToolDefinition) -> Result<()> {
    arguments::Arguments::new(definition).map(drop)
}

/// What the model is told where its call of `tool`, or the tool itself, failed.
fn told(tool: &str, text: impl Into<String>) -> InvokeToolResponse {
    InvokeToolResponse { parts: vec![said(tool, text)], is_error: true, ..InvokeToolResponse::default() }
}

/// A text, labelled with the tool that it comes from.
fn said(tool: &str, text: impl Into<String>) -> Part {
    Part::text(text).with_provenance(format!("tool:{tool}"))
}

fn name(tool: &v1::Tool) -> &str {
    tool.definition.as_ref().map_or("", |definition| definition.name.as_str())
}

/// The page of `tools` that is asked for.
///
/// # Errors
/// `InvalidArgument` for a token that this list never gave.
fn page(tools: Vec<v1::Tool>, request: &ListToolsRequest) -> Result<ListToolsResponse> {
    let wanted = |tool: &v1::Tool| request.group_id.is_empty() || tool.group_id == request.group_id;
    let tools = tools.into_iter().filter(wanted).collect();
    let (tools, next_page_token) = llama_stack_core::page::slice(tools, name, request.page_size, 1_000, &request.page_token)?;
    Ok(ListToolsResponse { tools, next_page_token })
}
