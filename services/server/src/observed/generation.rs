//! A generation under way, told to the metrics and its span.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use futures::Stream;
use opentelemetry::{Array, StringValue, Value};

use llama_stack_core::{Code, Context, Error, EventStream, Result, fold::ChatFold};
use llama_stack_proto::v1::{ChatEvent, CompleteEvent, FinishReason, Usage, chat_event, complete_event};

use super::content;
use crate::{
    limits::Limits,
    metrics::{Generating, Metrics},
    telemetry::{Span, Telemetry},
};

/// Of a text whose tokens nobody counted.
pub(super) const BYTES_PER_TOKEN: usize = 4;

/// Who is charged, for whom, and by what where the model does not come to say what it used.
pub(super) struct Meter {
    limits: Arc<Limits>,
    cx: Context,
    /// Bytes of the text that the model was given, and of what it has said by now.
    given: usize,
    said: usize,
    is_charged: bool,
}

impl Meter {
    pub(super) fn new(limits: Arc<Limits>, cx: Context, given: usize) -> Self {
        Self { limits, cx, given, said: 0, is_charged: false }
    }

    fn charge(&mut self, model: &str, usage: &Usage) {
        self.is_charged |= usage.total_tokens() > 0;
        self.limits.used(&self.cx, model, usage);
    }

    /// What is broken off before its end has been read all the same. Where nothing was said, the model may not have begun.
    fn settle(&mut self, model: &str) {
        if self.is_charged || self.said == 0 {
            return;
        }
        let tokens = |bytes: usize| u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX);
        let usage = Usage { prompt_tokens: tokens(self.given), completion_tokens: tokens(self.said), ..Usage::default() };
        self.charge(model, &usage);
    }
}

/// What is gathered about one generation. Dropping it ends the span.
pub(super) struct Generation {
    /// In the conventions' word: `chat`, `text_completion`.
    operation: &'static str,
    pub(super) model: String,
    pub(super) metrics: Metrics,
    pub(super) span: Option<Span>,
    pub(super) started: Instant,
    /// Only where content is captured.
    pub(super) answer: Option<ChatFold>,
    pub(super) meter: Option<Meter>,
    telemetry: Option<Arc<Telemetry>>,
    /// When the first event came, and the last.
    told: Option<(Instant, Instant)>,
    output_tokens: u32,
    outcome: Outcome,
    reasons: Vec<FinishReason>,
    /// Counts it while it lives.
    _generating: Generating,
}

/// How a generation ended, as far as it is known.
enum Outcome {
    Fine,
    /// In a stable word.
    Failed(String),
    /// There was none: what was asked for is not there, or makes no sense. Its names become no labels.
    Refused,
}

impl Generation {
    pub(super) fn new(
        operation: &'static str,
        model: &str,
        metrics: Metrics,
        telemetry: Option<Arc<Telemetry>>,
        span: Option<Span>,
        capture: bool,
    ) -> Self {
        Self {
            operation,
            model: model.into(),
            _generating: metrics.generating(),
            metrics,
            span,
            started: Instant::now(),
            answer: capture.then(ChatFold::default),
            meter: None,
            telemetry,
            told: None,
            output_tokens: 0,
            outcome: Outcome::Fine,
            reasons: Vec::new(),
        }
    }

    /// Notes a failure, and hands the result on.
    pub(super) fn noted<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failed(error);
        }
        result
    }

    fn failed(&mut self, error: &Error) {
        if let Some(span) = &mut self.span {
            span.fail(error);
        }
        self.outcome = match error.code() {
            Code::NotFound | Code::InvalidArgument => Outcome::Refused,
            code => Outcome::Failed(error.reason().unwrap_or(code.name()).to_owned()),
        };
    }

    pub(super) fn used(&mut self, usage: &Usage) {
        self.metrics.tokens(&self.model, usage);
        self.output_tokens = usage.completion_tokens;
        if let Some(telemetry) = &self.telemetry {
            telemetry.instruments.tokens(self.operation, &self.model, usage);
        }
        if let Some(meter) = &mut self.meter {
            meter.charge(&self.model, usage);
        }
        if let Some(span) = &mut self.span {
            span.set("gen_ai.usage.input_tokens", i64::from(usage.prompt_tokens));
            span.set("gen_ai.usage.output_tokens", i64::from(usage.completion_tokens));
            // Parts of the two above.
            let parts = [
                ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
                ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens),
            ];
            parts.into_iter().filter(|(_, count)| *count > 0).for_each(|(key, count)| span.set(key, i64::from(count)));
        }
    }

    pub(super) fn finished(&mut self, reason: FinishReason) {
        if self.span.is_some() {
            self.reasons.push(reason);
        }
    }

    /// So many bytes of the answer came.
    fn came(&mut self, bytes: usize) {
        if let Some(meter) = &mut self.meter {
            meter.said += bytes;
        }
        let now = Instant::now();
        if let Some((_, last)) = &mut self.told {
            *last = now;
            return;
        }
        self.told = Some((now, now));
        let took = now.saturating_duration_since(self.started);
        self.metrics.first_token(&self.model, took);
        if let Some(telemetry) = &self.telemetry {
            telemetry.instruments.first_token(self.operation, &self.model, took);
        }
        if let Some(span) = &mut self.span {
            span.set("gen_ai.response.time_to_first_chunk", took.as_secs_f64());
        }
    }

    fn measure(&self) {
        let (took, error) = match &self.outcome {
            Outcome::Refused => return,
            Outcome::Fine => (self.started.elapsed(), None),
            Outcome::Failed(error) => (self.started.elapsed(), Some(error.as_str())),
        };
        self.metrics.generated(&self.model, self.operation, took);
        // Of one token there is no time between.
        let per_token = self.told.filter(|_| self.output_tokens > 1).map(|(first, last)| {
            let between: Duration = last.saturating_duration_since(first);
            between / (self.output_tokens - 1)
        });
        if let Some(per_token) = per_token {
            self.metrics.per_token(&self.model, per_token);
        }
        if let Some(telemetry) = &self.telemetry {
            telemetry.instruments.took(self.operation, &self.model, took, error);
            if let Some(per_token) = per_token {
                telemetry.instruments.per_token(self.operation, &self.model, per_token);
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.measure();
        if let Some(meter) = &mut self.meter {
            meter.settle(&self.model);
        }
        let Some(span) = &mut self.span else { return };
        // None where nothing was answered.
        if !self.reasons.is_empty() {
            let reasons = self.reasons.iter().map(|reason| StringValue::from(word(*reason))).collect();
            span.set("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons)));
            span.set("gen_ai.response.model", self.model.clone());
        }
        if let Some(answer) = self.answer.take() {
            span.set("gen_ai.output.messages", content::answers(&answer.finish("").choices));
        }
    }
}

/// As the API writes it, which is what spans are to have.
pub(super) fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Unspecified => "unknown",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// An event of a generation.
pub(super) trait Told {
    fn tell(&self, generation: &mut Generation);
}

impl Told for ChatEvent {
    fn tell(&self, generation: &mut Generation) {
        use chat_event::Event;
        match &self.event {
            Some(Event::Usage(usage)) => generation.used(usage),
            Some(Event::Finish(reason)) => generation.finished(FinishReason::try_from(*reason).unwrap_or_default()),
            Some(Event::Text(text) | Event::Refusal(text) | Event::Reasoning(text)) => generation.came(text.len()),
            Some(Event::ToolCall(delta)) => generation.came(delta.name.len() + delta.arguments.len()),
            None => generation.came(0),
        }
        if let Some(answer) = &mut generation.answer {
            // A stream that breaks its own rules is refused where it is read; here it is only written down.
            let _ = answer.push(self.clone());
        }
    }
}

impl Told for CompleteEvent {
    fn tell(&self, generation: &mut Generation) {
        use complete_event::Event;
        match &self.event {
            Some(Event::Usage(usage)) => generation.used(usage),
            Some(Event::Finish(reason)) => generation.finished(FinishReason::try_from(*reason).unwrap_or_default()),
            Some(Event::Text(text)) => generation.came(text.len()),
            None => generation.came(0),
        }
    }
}

/// Events on their way through.
pub(super) struct Telling<T> {
    pub(super) events: EventStream<T>,
    pub(super) generation: Generation,
}

impl<T: Told> Stream for Telling<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<T>>> {
        let this = &mut *self;
        let event = this.events.as_mut().poll_next(cx);
        match &event {
            Poll::Ready(Some(Ok(event))) => event.tell(&mut this.generation),
            Poll::Ready(Some(Err(error))) => this.generation.failed(error),
            _ => {}
        }
        event
    }
}
