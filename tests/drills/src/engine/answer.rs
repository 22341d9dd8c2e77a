//! An answer of an engine of this project, as it came.

use std::{path::PathBuf, sync::Arc, time::Instant};

use futures::{Stream, StreamExt};
use llama_stack_core::{Context, Deps, Inference, Registry, Result};
use llama_stack_models::{ModelSpec, ModelStore, Resolved};
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, SamplingParams, Tokens, Usage, chat_event, complete_event, complete_request::Prompt,
};
use llama_stack_tests::conformance::local::{home, models};
use serde_json::{Value, json};

use crate::figures::median;

/// One model, loaded.
pub(crate) async fn engine(kind: &str, spec: Value) -> Arc<dyn Inference> {
    let mut registry = Registry::default();
    llama_stack_engine_llama_cpp::register(&mut registry);
    llama_stack_engine_mistralrs::register(&mut registry);
    registry.inference.build(kind, json!({ "models": [spec], "load": "eager" }), Deps::new(home())).await.unwrap()
}

pub(crate) fn with_options(mut spec: Value, options: Value) -> Value {
    spec["options"] = options;
    spec
}

/// The files of a model, in the tests' store.
pub(crate) async fn resolve(spec: Value) -> Resolved {
    let spec: ModelSpec = serde_json::from_value(spec).unwrap();
    let store = ModelStore::open(models()).unwrap();
    spec.resolve(&store, &Deps::new(PathBuf::new()).on_progress).await.unwrap()
}

/// When an answer's parts came, in seconds from the call on.
pub(crate) struct Timed {
    pub(crate) first: f64,
    pub(crate) whole: f64,
    pub(crate) usage: Usage,
}

impl Timed {
    /// Tokens a second, after the first.
    pub(crate) fn decode(&self) -> f64 {
        f64::from(self.usage.completion_tokens.saturating_sub(1)) / (self.whole - self.first)
    }

    pub(crate) fn speed(&self) -> Speed {
        Speed { prefill: f64::from(self.usage.prompt_tokens) / self.first, decode: self.decode() }
    }
}

/// Tokens a second: of the prompt until the first token came, and after it.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) prefill: f64,
    pub(crate) decode: f64,
}

impl Speed {
    pub(crate) fn median(all: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(all.iter().map(part).collect());
        Self { prefill: of(|speed| speed.prefill), decode: of(|speed| speed.decode) }
    }

    /// How much faster than another.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self { prefill: self.prefill / other.prefill, decode: self.decode / other.decode }
    }

    pub(crate) fn least(&self, other: &Self) -> Self {
        Self { prefill: self.prefill.min(other.prefill), decode: self.decode.min(other.decode) }
    }
}

pub(crate) fn tokens(model: &str, prompt: &[u32], max_tokens: u32) -> CompleteRequest {
    CompleteRequest {
        model: model.into(),
        prompt: Some(Prompt::Tokens(Tokens { ids: prompt.to_vec() })),
        sampling: Some(SamplingParams::greedy(max_tokens)),
        ..CompleteRequest::default()
    }
}

pub(crate) async fn complete(engine: &Arc<dyn Inference>, request: CompleteRequest) -> Timed {
    let begun = Instant::now();
    let events = engine.stream_complete(&Context::test("drill"), request).await.unwrap();
    let usage = |event: complete_event::Event| match event {
        complete_event::Event::Usage(usage) => Some(usage),
        _ => None,
    };
    timed(begun, events.map(|event| event.map(|event| event.event.and_then(usage)))).await
}

pub(crate) async fn chat(engine: &Arc<dyn Inference>, cx: &Context, request: ChatRequest) -> Timed {
    let begun = Instant::now();
    let events = engine.stream_chat(cx, request).await.unwrap();
    let usage = |event: chat_event::Event| match event {
        chat_event::Event::Usage(usage) => Some(usage),
        _ => None,
    };
    timed(begun, events.map(|event| event.map(|event| event.event.and_then(usage)))).await
}

/// The first event comes with the first token whose text is known, the last is the usage.
async fn timed(begun: Instant, mut events: impl Stream<Item = Result<Option<Usage>>> + Unpin) -> Timed {
    let (mut first, mut found) = (None, None);
    while let Some(event) = events.next().await {
        first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
        if let Some(usage) = event.unwrap() {
            found = Some(usage);
        }
    }
    Timed { first: first.unwrap(), whole: begun.elapsed().as_secs_f64(), usage: found.unwrap() }
}
