//! Traces and measures by OTLP, under the names of OpenTelemetry's GenAI conventions. Spans are made by [`crate::observed`].
//!
//! Source of the names: OpenTelemetry's semantic conventions 1.41 for generative AI (`gen_ai.*`) and for the Model Context Protocol
//! (`mcp.*`), the last before they got a repository of their own.

mod instruments;

use std::{
    borrow::Cow,
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    KeyValue,
    metrics::MeterProvider as _,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span as SdkSpan},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tonic::transport::{Certificate, ClientTlsConfig};

use llama_stack_core::{
    Context, Error, Manifest, Result,
    trace::{self, OpenSpan},
};

use crate::observed::LONGEST;

pub(crate) use instruments::Instruments;

/// As `gen_ai.provider.name`: whoever answers, this stack was asked.
pub(crate) const PROVIDER: &str = "llama-stack";

/// The last spans get this long to leave.
const FLUSH: Duration = Duration::from_secs(5);
/// What collectors take in one message.
const MESSAGE: usize = 4 << 20;
/// Spans of one message where content is captured, which is in two attributes of a span at the most; beside them there is room for the rest.
const MOST_CAPTURED: usize = MESSAGE / CAPTURED;
const CAPTURED: usize = 2 * LONGEST + 8_192;
/// Spans with captured content that wait for a collector which does not take them: 64 MiB at the most. What comes then is dropped.
const MOST_WAITING: usize = (64 << 20) / CAPTURED;
/// What says so for any spans, of OpenTelemetry's own variables.
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";

pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    meters: SdkMeterProvider,
    pub(crate) instruments: Instruments,
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
        let (mut exporter, mut measures) =
            (SpanExporter::builder().with_tonic().with_endpoint(endpoint), MetricExporter::builder().with_tonic().with_endpoint(endpoint));
        if endpoint.starts_with("https://") {
            let tls = tls(manifest)?;
            (exporter, measures) = (exporter.with_tls_config(tls.clone()), measures.with_tls_config(tls));
        }
        let no_url = |error| {
            let what = format!("{endpoint:?} is not a URL like http://127.0.0.1:4317");
            manifest.lines.error("telemetry.otlp_endpoint", &what).with_source(error)
        };
        let (exporter, measures) = (exporter.build().map_err(no_url)?, measures.build().map_err(no_url)?);
        let service = Resource::builder()
            .with_service_name("llama-stack")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("llama_stack.distribution", manifest.name.clone()),
            ])
            .build();
        let meters = SdkMeterProvider::builder().with_periodic_exporter(measures).with_resource(service.clone()).build();
        let mut batch = BatchConfigBuilder::default();
        if manifest.telemetry.capture_content {
            batch = batch.with_max_export_batch_size(MOST_CAPTURED);
            if std::env::var_os(QUEUE).is_none() {
                batch = batch.with_max_queue_size(MOST_WAITING);
            }
        }
        let spans = BatchSpanProcessor::builder(exporter).with_batch_config(batch.build()).build();
        let provider = SdkTracerProvider::builder().with_span_processor(spans).with_resource(service).build();
        let instruments = Instruments::new(&meters.meter("llama-stack"));
        let tracer = provider.tracer("llama-stack");
        Ok(Some(Self { provider, tracer, meters, instruments, capture_content: manifest.telemetry.capture_content }))
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
        let (provider, meters) = (self.provider.clone(), self.meters.clone());
        // Each blocks until its exporter's thread is done.
        let traces = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        let measures = tokio::task::spawn_blocking(move || meters.shutdown_with_timeout(FLUSH));
        if let Ok(Err(error)) = traces.await {
            tracing::warn!(%error, "the last traces could not be sent");
        }
        if let Ok(Ok(Err(error))) = tokio::time::timeout(FLUSH, measures).await {
            tracing::warn!(%error, "the last measures could not be sent");
        }
    }
}

/// Whose collectors are believed. A relative path begins at the manifest's folder.
fn tls(manifest: &Manifest) -> Result<ClientTlsConfig> {
    let tls = ClientTlsConfig::new().with_enabled_roots();
    let Some(named) = &manifest.telemetry.otlp_ca else { return Ok(tls) };
    let path = Path::new(manifest.lines.file()).parent().unwrap_or(Path::new("")).join(named);
    let wrong = |what: &str| manifest.lines.error("telemetry.otlp_ca", &format!("{}: {what}", path.display()));
    let pem = std::fs::read(&path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    if CertificateDer::from_pem_slice(&pem).is_err() {
        return Err(wrong("holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(tls.ca_certificate(Certificate::from_pem(pem)))
}

impl trace::Tracer for Telemetry {
    fn client(&self, cx: &Context, name: String, attributes: Vec<(&'static str, trace::Value)>) -> (Box<dyn OpenSpan>, Context) {
        let attributes = attributes.into_iter().map(|(name, value)| KeyValue::new(name, held(value))).collect();
        let (span, below) = self.span(cx, name, SpanKind::Client, attributes);
        (Box::new(span), below)
    }
}

impl OpenSpan for Span {
    fn set(&mut self, key: &'static str, value: trace::Value) {
        Span::set(self, key, held(value));
    }

    fn fail(&mut self, error: &Error) {
        Span::fail(self, error);
    }

    fn fail_as(&mut self, kind: &str) {
        Span::fail_as(self, kind);
    }
}

fn held(value: trace::Value) -> opentelemetry::Value {
    match value {
        trace::Value::Text(text) => text.into(),
        trace::Value::Number(number) => number.into(),
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

    /// Notes that the answer itself tells of a failure, of this stable kind.
    pub(crate) fn fail_as(&mut self, kind: &str) {
        self.fail_with(kind, "");
    }

    /// As [`Span::fail_as`], with what the caller is told.
    pub(crate) fn fail_with(&mut self, kind: &str, told: impl Into<Cow<'static, str>>) {
        self.set("error.type", kind.to_owned());
        self.0.set_status(Status::error(told));
    }
}
