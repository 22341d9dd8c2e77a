//! A call that is answered here as a span, under the names of OpenTelemetry's conventions for MCP: the caller's span is above it, and
//! what it does below.
//!
//! Source of the names: the semantic conventions for the Model Context Protocol, "server spans".

use opentelemetry::{KeyValue, trace::SpanKind};
use rmcp::{ErrorData, RoleServer, model::CallToolResult, service::RequestContext};

use llama_stack_core::{Code, Context};

use crate::telemetry::{Span, Telemetry};

/// Of a request's id, which is the caller's to choose.
const MAX_CHARS: usize = 128;

/// The span, where traces are sent, and the context below it. It has no tool's name before it is known that there is one, or callers
/// could make up any number of names for spans; and that a tool is executed is said by the span below it.
pub(super) fn begin(telemetry: Option<&Telemetry>, cx: Context, context: &RequestContext<RoleServer>) -> (Option<Span>, Context) {
    let Some(telemetry) = telemetry else { return (None, cx) };
    let id: String = context.id.to_string().chars().take(MAX_CHARS).collect();
    let mut attributes = vec![
        KeyValue::new("mcp.method.name", "tools/call"),
        KeyValue::new("jsonrpc.request.id", id),
        KeyValue::new("network.transport", "tcp"),
        KeyValue::new("network.protocol.name", "http"),
    ];
    attributes.extend(context.protocol_version().map(|version| KeyValue::new("mcp.protocol.version", version.to_string())));
    let (span, below) = telemetry.span(&cx, "tools/call".to_owned(), SpanKind::Server, attributes);
    (Some(span), below)
}

/// There is a tool of this name.
pub(super) fn found(span: &mut Option<Span>, tool: &str) {
    let Some(span) = span else { return };
    span.rename(format!("tools/call {tool}"));
    span.set("gen_ai.tool.name", tool.to_owned());
}

/// Nobody waits for the answer any more.
pub(super) fn given_up(span: Option<Span>) {
    if let Some(mut span) = span {
        span.fail_as(Code::Cancelled.name());
    }
}

pub(super) fn end(span: &mut Option<Span>, answer: &Result<CallToolResult, ErrorData>) {
    let Some(span) = span else { return };
    match answer {
        Err(error) => {
            let code = error.code.0.to_string();
            span.set("rpc.response.status_code", code.clone());
            span.fail_with(&code, error.message.clone());
        }
        Ok(result) if result.is_error == Some(true) => span.fail_as("tool_error"),
        Ok(_) => {}
    }
}
