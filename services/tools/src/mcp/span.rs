//! A call as a span, under the names of OpenTelemetry's conventions for MCP.
//!
//! Source of the names: the semantic conventions for the Model Context Protocol, "client spans".

use llama_stack_core::{
    Context, Result,
    trace::{OpenSpan, Tracer},
};
use llama_stack_proto::v1::InvokeToolResponse;

use super::{config::Endpoint, session::Session};

/// The span, where traces are sent, and the context whose trace goes along in `_meta`.
pub(super) fn begin(
    tracer: Option<&dyn Tracer>,
    cx: &Context,
    endpoint: &Endpoint,
    session: &Session,
    tool: &str,
) -> (Option<Box<dyn OpenSpan>>, Context) {
    let Some(tracer) = tracer else { return (None, cx.clone()) };
    let mut attributes = vec![
        ("mcp.method.name", "tools/call".to_owned()),
        ("gen_ai.operation.name", "execute_tool".to_owned()),
        ("gen_ai.tool.name", tool.to_owned()),
    ];
    attributes.extend(session.protocol_version().map(|version| ("mcp.protocol.version", version)));
    match endpoint {
        Endpoint::Http(server) => {
            let (host, port) = server.address();
            attributes.extend([("network.transport", "tcp".to_owned()), ("server.address", host)]);
            attributes.extend(port.map(|port| ("server.port", port.to_string())));
        }
        Endpoint::Stdio(_) => attributes.push(("network.transport", "pipe".to_owned())),
    }
    let (span, below) = tracer.client(cx, format!("tools/call {tool}"), attributes);
    (Some(span), below)
}

pub(super) fn end(span: &mut Option<Box<dyn OpenSpan>>, answer: &Result<InvokeToolResponse>) {
    let Some(span) = span else { return };
    match answer {
        Err(error) => span.fail(error),
        Ok(response) if response.is_error => span.set("error.type", "tool_error".to_owned()),
        Ok(_) => {}
    }
}
