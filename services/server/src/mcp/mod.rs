//! The stack as an MCP server: its tools, and its agents and banks as tools, at `/mcp`.
//!
//! ```text
//! POST /mcp ─ Origin ─ Caller ─ rmcp (streamable HTTP, no sessions) ─ Handler ─┬─ Tools
//!                                                                              ├─ agents ─ Agents: one turn per call
//!                                                                              └─ banks ── Memory: a search
//! ```
//!
//! Nothing is kept between two requests, so that any replica answers any of them. Both generations of the protocol.

mod agents;
mod banks;
mod content;
mod handler;
mod span;

use std::sync::Arc;

use ::http::{HeaderMap, header};
use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::post,
};
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::never::NeverSessionManager};

use llama_stack_core::{Code, Error, Result};

use self::handler::Handler;
use crate::{
    Stack,
    http::{ApiError, AppState, Caller, read},
    openapi::{Api, Operation, route},
};

pub(crate) type Service = StreamableHttpService<Handler, NeverSessionManager>;

pub(crate) fn service(stack: &Stack) -> Service {
    // Origins are checked here, and a proxy in front may send any host.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(stack.server.max_body_bytes)
        .disable_allowed_hosts();
    let (tools, agents, memory) = (stack.tools.clone(), stack.agents.clone(), stack.memory.clone());
    let handler = Handler { tools, agents, memory, telemetry: stack.telemetry.clone() };
    StreamableHttpService::new(move || Ok(handler.clone()), Arc::default(), config)
}

pub(crate) fn routes(api: &mut Api) {
    let operation =
        Operation::new("The Model Context Protocol over streamable HTTP: the tools, and the agents and banks as tools.").returns_any();
    api.post(route!("/mcp"), post(serve), operation);
}

async fn serve(State(state): State<AppState>, Caller(cx): Caller, mut request: Request) -> Result<Response, ApiError> {
    check_origin(request.headers(), &state.origins)?;
    request.extensions_mut().insert(cx);
    // Read here: what is wrong with a body on its way is not told as a failure of the server's.
    let (parts, body) = request.into_parts();
    let body = read(body, state.max_body_bytes).await?;
    Ok(state.mcp.handle(Request::from_parts(parts, Body::from(body))).await.map(Body::new))
}

/// Browsers say where a page comes from, whatever name the page has made this address answer to. Other clients say nothing.
///
/// # Errors
/// `PermissionDenied` for a page of an origin that the manifest does not name.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<()> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    if allowed.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes()) {
        return Ok(());
    }
    let message = "pages of this origin may not use /mcp; the manifest's server.cors_origins names those that may";
    Err(Error::new(Code::PermissionDenied, message).with_reason("origin_not_allowed"))
}
