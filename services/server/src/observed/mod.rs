//! Services as they are, with a span and metrics around every call that a GenAI convention names.
//!
//! gRPC, HTTP, agents and shields all call through these, so each call is told once, wherever it came from.

mod agents;
mod content;
mod generation;
mod inference;
mod policy;
mod safety;
mod tools;

use std::sync::Arc;

use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Context, Result};

use crate::{
    history::AuditLog,
    limits::Limits,
    metrics::Metrics,
    telemetry::{Span, Telemetry},
};

pub(crate) use content::LONGEST;
pub(crate) use policy::Audited;

/// A service trait's implementation that forwards to another.
pub(crate) struct Observed<S: ?Sized> {
    inner: Arc<S>,
    telemetry: Option<Arc<Telemetry>>,
    metrics: Metrics,
    /// Who is charged for what models read and write.
    limits: Option<Arc<Limits>>,
    /// Where verdicts are written down.
    audit: Option<AuditLog>,
}

impl<S: ?Sized> Observed<S> {
    pub(crate) fn new(inner: Arc<S>, telemetry: Option<Arc<Telemetry>>, metrics: Metrics) -> Self {
        Self { inner, telemetry, metrics, limits: None, audit: None }
    }

    pub(crate) fn metered(self, limits: Arc<Limits>) -> Self {
        Self { limits: Some(limits), ..self }
    }

    pub(crate) fn audited(self, audit: AuditLog) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// A span named by what is done and to what, and the context below it; where nothing is traced, the context as it is.
    fn span(
        &self,
        cx: &Context,
        operation: &'static str,
        object: &str,
        kind: SpanKind,
        mut attributes: Vec<KeyValue>,
    ) -> (Option<Span>, Context) {
        let Some(telemetry) = &self.telemetry else { return (None, cx.clone()) };
        attributes.push(KeyValue::new("gen_ai.operation.name", operation));
        let name = if object.is_empty() { operation.to_owned() } else { format!("{operation} {object}") };
        let (span, below) = telemetry.span(cx, name, kind, attributes);
        (Some(span), below)
    }

    fn captures(&self) -> bool {
        self.telemetry.as_ref().is_some_and(|telemetry| telemetry.capture_content)
    }
}

/// Notes a failure in the span, and hands the result on.
fn noted<T>(span: &mut Option<Span>, result: Result<T>) -> Result<T> {
    if let (Some(span), Err(error)) = (span, &result) {
        span.fail(error);
    }
    result
}
