//! A generation under way, told to the metrics and its span.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Instant,
};

use futures::Stream;
use opentelemetry::{Array, StringValue, Value};

use llama_stack_core::{Context, EventStream, Result, fold::ChatFold};
use llama_stack_proto::v1::{ChatEvent, CompleteEvent, FinishReason, Usage, chat_event, complete_event};

use super::content;
use crate::{limits::Limits, metrics::Metrics, telemetry::Span};

/// What is gathered about one generation. Dropping it ends the span.
pub(super) struct Generation {
    pub(super) model: String,
    pub(super) metrics: Metrics,
    pub(super) span: Option<Span>,
    pub(super) started: Instant,
    /// Only where content is captured.
    pub(super) answer: Option<ChatFold>,
    /// Who is charged, and for whom.
    pub(super) meter: Option<(Arc<Limits>, Context)>,
    begun: bool,
    reasons: Vec<FinishReason>,
}

impl Generation {
    pub(super) fn new(model: &str, metrics: Metrics, span: Option<Span>, capture: bool) -> Self {
        let answer = capture.then(ChatFold::default);
        Self { model: model.into(), metrics, span, started: Instant::now(), answer, meter: None, begun: false, reasons: Vec::new() }
    }

    pub(super) fn used(&mut self, usage: &Usage) {
        self.metrics.tokens(&self.model, usage);
        if let Some((limits, cx)) = &self.meter {
            limits.used(cx, &self.model, usage);
        }
        if let Some(span) = &mut self.span {
            span.set("gen_ai.usage.input_tokens", i64::from(usage.prompt_tokens));
            span.set("gen_ai.usage.output_tokens", i64::from(usage.completion_tokens));
        }
    }

    pub(super) fn finished(&mut self, reason: FinishReason) {
        if self.span.is_some() {
            self.reasons.push(reason);
        }
    }

    fn first(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.metrics.first_token(&self.model, self.started.elapsed());
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let Some(span) = &mut self.span else { return };
        let reasons = self.reasons.iter().map(|reason| StringValue::from(word(*reason))).collect();
        span.set("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons)));
        span.set("gen_ai.response.model", self.model.clone());
        if let Some(answer) = self.answer.take() {
            let said: Vec<_> = answer.finish("").choices.into_iter().filter_map(|choice| choice.message).collect();
            span.set("gen_ai.output.messages", content::messages(&said));
        }
    }
}

/// As the conventions write it.
fn word(reason: FinishReason) -> &'static str {
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
        match &self.event {
            Some(chat_event::Event::Usage(usage)) => generation.used(usage),
            Some(chat_event::Event::Finish(reason)) => generation.finished(FinishReason::try_from(*reason).unwrap_or_default()),
            _ => generation.first(),
        }
        if let Some(answer) = &mut generation.answer {
            // A stream that breaks its own rules is refused where it is read; here it is only written down.
            let _ = answer.push(self.clone());
        }
    }
}

impl Told for CompleteEvent {
    fn tell(&self, generation: &mut Generation) {
        match &self.event {
            Some(complete_event::Event::Usage(usage)) => generation.used(usage),
            Some(complete_event::Event::Finish(reason)) => generation.finished(FinishReason::try_from(*reason).unwrap_or_default()),
            _ => generation.first(),
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
            Poll::Ready(Some(Err(error))) => {
                if let Some(span) = &mut this.generation.span {
                    span.fail(error);
                }
            }
            _ => {}
        }
        event
    }
}
