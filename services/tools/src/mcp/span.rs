//! A call as a span, under the names of OpenTelemetry's conventions for MCP.
//!
//! Source of the names: the semantic conventions for the Model Context Protocol, "client spans".

use llama_stack_core::{
    Code, Context, Result,
    trace::{OpenSpan, Tracer, Value},
};
use llama_stack_proto::v1::InvokeToolResponse;

use super::{config::Endpoint, session::Session};

/// The span, where traces are sent. A call that is given up has no answer to end it with: that is told when this is dropped.
pub(super) struct CallSpan(Option<Box<dyn OpenSpan>>);

/// The span, and the context whose trace goes along in `_meta`. That this executes a tool is said by the span above it.
pub(super) fn begin(tracer: Option<&dyn Tracer>, cx: &Context, endpoint: &Endpoint, tool: &str) -> (CallSpan, Context) {
    let Some(tracer) = tracer else { return (CallSpan(None), cx.clone()) };
    let mut attributes: Vec<(&'static str, Value)> = vec![("mcp.method.name", "tools/call".into()), ("gen_ai.tool.name", tool.into())];
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
    (CallSpan(Some(span)), below)
}

impl CallSpan {
    pub(super) fn connected(&mut self, session: &Session) {
        if let (Some(span), Some(version)) = (&mut self.0, session.protocol_version()) {
            span.set("mcp.protocol.version", Value::from(version));
        }
    }

    pub(super) fn end(&mut self, answer: &Result<InvokeToolResponse>) {
        let Some(mut span) = self.0.take() else { return };
        match answer {
            Err(error) => span.fail(error),
            Ok(response) if response.is_error => span.fail_as("tool_error"),
            Ok(_) => {}
        }
    }

    /// The server refused the call with this code of JSON-RPC: what the tool's caller is told is not the span's any more.
    pub(super) fn refused(&mut self, code: i32) {
        if let Some(mut span) = self.0.take() {
            span.set("rpc.response.status_code", code.to_string().into());
            span.fail_as(&code.to_string());
        }
    }

    /// Where it has not ended yet, the tool's time was over, or, with an error, the caller's.
    pub(super) fn late(&mut self, answer: &Result<InvokeToolResponse>) {
        let Some(mut span) = self.0.take() else { return };
        match answer {
            Err(error) => span.fail(error),
            Ok(_) => span.fail_as("timeout"),
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if let Some(span) = &mut self.0 {
            span.fail_as(Code::Cancelled.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use llama_stack_core::Error;

    use super::*;

    #[derive(Clone, Default)]
    struct Noted(Arc<Mutex<Vec<String>>>);

    impl OpenSpan for Noted {
        fn set(&mut self, _: &'static str, _: Value) {}

        fn fail(&mut self, error: &Error) {
            self.fail_as(error.code().name());
        }

        fn fail_as(&mut self, kind: &str) {
            self.0.lock().unwrap().push(kind.to_owned());
        }
    }

    /// What failed, when `work` has had the span and dropped it.
    fn failures(work: impl FnOnce(&mut CallSpan)) -> Vec<String> {
        let noted = Noted::default();
        work(&mut CallSpan(Some(Box::new(noted.clone()))));
        let failures = noted.0.lock().unwrap();
        failures.clone()
    }

    #[test]
    fn a_call_that_is_given_up_does_not_look_like_one_that_succeeded() {
        let answered = || Ok(InvokeToolResponse::default());
        assert_eq!(failures(|_| {}), ["CANCELLED"]);
        assert_eq!(failures(|span| span.late(&answered())), ["timeout"]);
        assert_eq!(failures(|span| span.late(&Err(Error::new(Code::DeadlineExceeded, "late")))), ["DEADLINE_EXCEEDED"]);
        assert_eq!(failures(|span| span.end(&Err(Error::unavailable("no way there")))), ["UNAVAILABLE"]);
        let ended = |span: &mut CallSpan| {
            span.end(&answered());
            span.late(&answered());
        };
        assert!(failures(ended).is_empty());
    }
}
