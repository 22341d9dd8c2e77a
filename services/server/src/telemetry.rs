//! Traces by OTLP, under the names of OpenTelemetry's GenAI conventions. Spans are made by [`crate::observed`].
//!
//! Source of the names: the semantic conventions for generative AI, `gen_ai.*`.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan},
};

use llama_stack_core::{Context, Error, Manifest, Result};

/// The last spans get this long to leave.
const FLUSH: Duration = Duration::from_secs(5);

pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// Prompts and answers are recorded only where the manifest asks for it.
    pub(crate) capture_content: bool,
}

impl Telemetry {
    /// None where the manifest names no endpoint. Contacts nobody: spans that cannot be sent are dropped.
    ///
    /// # Errors
    /// `InvalidArgument` for an endpoint that is no URL, with its place in the manifest.
    pub(crate) fn new(manifest: &Manifest) -> Result<Option<Self>> {
        let endpoint = &manifest.telemetry.otlp_endpoint;
        if endpoint.is_empty() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| {
            let what = format!("{endpoint:?} is not a URL like http://127.0.0.1:4317");
            manifest.lines.error("telemetry.otlp_endpoint", &what).with_source(error)
        })?;
        let service = Resource::builder()
            .with_service_name("llama-stack")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("llama_stack.distribution", manifest.name.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(service).build();
        Ok(Some(Self::over(provider, manifest.telemetry.capture_content)))
    }

    pub(crate) fn over(provider: SdkTracerProvider, capture_content: bool) -> Self {
        let tracer = provider.tracer("llama-stack");
        Self { provider, tracer, capture_content }
    }

    /// A span below the caller's trace, and the context under which what it does goes on.
    pub(crate) fn span(&self, cx: &Context, name: String, kind: SpanKind, attributes: Vec<KeyValue>) -> (Span, Context) {
        let parent = match cx.trace() {
            Some(trace) => {
                let carrier = HashMap::from([("traceparent".to_owned(), trace.to_owned())]);
                TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier)
            }
            None => opentelemetry::Context::new(),
        };
        let builder = self.tracer.span_builder(name).with_kind(kind).with_attributes(attributes).with_start_time(SystemTime::now());
        let span = self.tracer.build_with_context(builder, &parent);
        let below = cx.clone().with_trace(traceparent(&span, &parent));
        (Span(span), below)
    }

    /// Sends what is left, for at most five seconds.
    pub(crate) async fn shutdown(&self) {
        let provider = self.provider.clone();
        // Blocks until the exporter's thread is done.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// W3C `traceparent` of `span`. A span that is not sampled says so, so that what follows is not either.
fn traceparent(span: &SdkSpan, parent: &opentelemetry::Context) -> String {
    let own = span.span_context();
    let context = if own.is_valid() { own.clone() } else { parent.span().span_context().clone() };
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// Ends when it is dropped.
pub(crate) struct Span(SdkSpan);

impl Span {
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    pub(crate) fn rename(&mut self, name: String) {
        self.0.update_name(name);
    }

    /// Notes a failure. Only what the caller is told: a cause may hold anything.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.set("error.type", error.reason().unwrap_or(error.code().name()).to_owned());
        self.0.set_status(Status::error(error.message().to_owned()));
    }
}
