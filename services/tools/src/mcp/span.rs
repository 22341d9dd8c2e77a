//! A call as a span, under the names of OpenTelemetry's conventions for MCP.
//!
//! Source of the names: the semantic conventions for the Model Context Protocol, "client spans".

use llama_stack_core::{
    Context, Result,
    trace::{OpenSpan, Tracer, Value},
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
    let mut attributes: Vec<(&'static str, Value)> =
        vec![("mcp.method.name", "tools/call".into()), ("gen_ai.operation.name", "execute_tool".into()), ("gen_ai.tool.name", tool.into())];
    attributes.extend(session.protocol_version().map(|version| ("mcp.protocol.version", Value::from(version))));
    match endpoint {
        Endpoint::Http(server) => {
            let (host, port) = server.address();
            attributes.extend([
                ("network.transport", Value::from("tcp")),
                ("network.protocol.name", Value::from("http")),
                ("server.address", Value::from(host)),
            ]);
            attributes.extend(port.map(|port| ("server.port", Value::Number(port.into()))));
        }
        Endpoint::Stdio(_) => attributes.push(("network.transport", Value::from("pipe"))),
    }
    let (span, below) = tracer.client(cx, format!("tools/call {tool}"), attributes);
    (Some(span), below)
}

pub(super) fn end(span: &mut Option<Box<dyn OpenSpan>>, answer: &Result<InvokeToolResponse>) {
    let Some(span) = span else { return };
    match answer {
        Err(error) => span.fail(error),
        Ok(response) if response.is_error => span.fail_as("tool_error"),
        Ok(_) => {}
    }
}

/// The server refused the call with this code of JSON-RPC: what the tool's caller is told is not the span's any more.
pub(super) fn refused(span: &mut Option<Box<dyn OpenSpan>>, code: i32) {
    if let Some(mut span) = span.take() {
        span.set("rpc.response.status_code", code.to_string().into());
        span.fail_as(&code.to_string());
    }
}
