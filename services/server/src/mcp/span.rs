//! A call that is answered here as a span, under the names of OpenTelemetry's conventions for MCP: the caller's span is above it, and
//! what it does below.
//!
//! Source of the names: the semantic conventions for the Model Context Protocol, "server spans".

use opentelemetry::{KeyValue, trace::SpanKind};
use rmcp::{ErrorData, RoleServer, model::CallToolResult, service::RequestContext};

use llama_stack_core::Context;

use crate::telemetry::{Span, Telemetry};

/// The protocol lets names of tools be this long.
const MAX_CHARS: usize = 128;

/// The span, where traces are sent, and the context below it.
pub(super) fn begin(
    telemetry: Option<&Telemetry>,
    cx: Context,
    tool: &str,
    context: &RequestContext<RoleServer>,
) -> (Option<Span>, Context) {
    let Some(telemetry) = telemetry else { return (None, cx) };
    let short = |text: &str| text.chars().take(MAX_CHARS).collect::<String>();
    let mut attributes = vec![
        KeyValue::new("mcp.method.name", "tools/call"),
        KeyValue::new("gen_ai.operation.name", "execute_tool"),
        KeyValue::new("gen_ai.tool.name", short(tool)),
        KeyValue::new("jsonrpc.request.id", short(&context.id.to_string())),
        KeyValue::new("network.transport", "tcp"),
        KeyValue::new("network.protocol.name", "http"),
    ];
    attributes.extend(context.protocol_version().map(|version| KeyValue::new("mcp.protocol.version", version.to_string())));
    let (span, below) = telemetry.span(&cx, format!("tools/call {}", short(tool)), SpanKind::Server, attributes);
    (Some(span), below)
}

pub(super) fn end(span: &mut Option<Span>, answer: &Result<CallToolResult, ErrorData>) {
    let Some(span) = span else { return };
    match answer {
        Err(error) => {
            let code = error.code.0.to_string();
            span.set("rpc.response.status_code", code.clone());
            span.fail_as(&code);
        }
        Ok(result) if result.is_error == Some(true) => span.fail_as("tool_error"),
        Ok(_) => {}
    }
}
