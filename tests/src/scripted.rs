//! A model whose words are fixed by what it is asked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Registry, Result, ids, no_such_model};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, EmbedRequest, EmbedResponse, Embedding, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind,
    Role, ToolCallDelta, Usage, part::Content, tool_choice::Mode,
};
use serde::Deserialize;

/// Answers by the last user or tool message:
///
/// | message | answer |
/// |---|---|
/// | `call NAME {…}` | a call of that tool, if tools are offered (several lines: several calls) |
/// | `count N` | the words `1 2 … N`, each an event |
/// | `forever` | words without end, one a millisecond |
/// | `hang` | nothing, ever |
/// | `fail` | `Unavailable` before the first event |
/// | `break` | two words, then the stream ends in an error |
/// | a tool's result | `the tool said: …` |
/// | anything else | `you said: …`, and with how many images |
#[derive(Default)]
pub struct Scripted {
    pub running: Arc<AtomicUsize>,
    pub asked: AtomicUsize,
}

/// The id of its model.
pub const MODEL: &str = "scripted";
/// The id of its embedding model, of dimension 4.
pub const EMBEDDING_MODEL: &str = "scripted-embedding";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// Registers the type `test::scripted`.
pub fn register(registry: &mut Registry) {
    registry.inference.add("test::scripted", |_: Config, _: Deps| async { Ok(Arc::new(Scripted::default()) as Arc<dyn Inference>) });
}

/// Counts a stream while it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Inference for Scripted {
    async fn list_models(&self, _: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let chat = Model { id: MODEL.into(), kind: ModelKind::Chat.into(), context_length: 4096, ..Model::default() };
        let embedding = Model { id: EMBEDDING_MODEL.into(), kind: ModelKind::Embedding.into(), embedding_dimension: 4, ..Model::default() };
        let wanted = |model: &Model| request.kind == 0 || model.kind == request.kind;
        Ok(ListModelsResponse { models: [chat, embedding].into_iter().filter(wanted).collect(), next_page_token: String::new() })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        if request.model != MODEL {
            return Err(no_such_model(&request.model, [MODEL].into_iter()));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(self.running.clone());
        let events = script(&request)?;
        Ok(Box::pin(events.map(move |event| {
            let _ = &running;
            event
        })))
    }

    async fn embed(&self, _: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        if request.model != EMBEDDING_MODEL {
            return Err(no_such_model(&request.model, [EMBEDDING_MODEL].into_iter()));
        }
        let embeddings = request.inputs.iter().enumerate().map(|(n, _)| Embedding { values: vec![n as f32, 0.5, -0.25, 1.0] }).collect();
        let usage = Usage { prompt_tokens: request.inputs.len() as u32, ..Usage::default() };
        Ok(EmbedResponse { model: request.model, embeddings, usage: Some(usage), truncated_inputs: 0 })
    }
}

fn script(request: &ChatRequest) -> Result<EventStream<ChatEvent>> {
    let last = request.messages.last().ok_or_else(|| Error::invalid("messages", "messages must hold at least one"))?;
    let text = match last.role() {
        Role::Tool => {
            let said: Vec<String> = last.tool_results().map(llama_stack_proto::v1::ToolResult::joined_text).collect();
            return Ok(words(request, &format!("the tool said: {}", said.join(" | "))));
        }
        _ => last.joined_text(),
    };
    let offered = !request.tools.is_empty() && request.tool_choice.as_ref().is_none_or(|choice| choice.mode() != Mode::None);
    Ok(match text.split_whitespace().next() {
        Some("call") if offered => calls(request, &text),
        Some("count") => {
            let n: u32 = text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(3);
            let counted: Vec<String> = (1..=n).map(|n| n.to_string()).collect();
            words(request, &counted.join(" "))
        }
        Some("forever") => Box::pin(stream::unfold(0u64, |n| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok(ChatEvent::text(0, format!("{n} "))), n + 1))
        })),
        Some("hang") => Box::pin(stream::pending()),
        Some("fail") => return Err(Error::unavailable("the scripted model failed, as it was asked to")),
        Some("break") => Box::pin(stream::iter([
            Ok(ChatEvent::text(0, "one ")),
            Ok(ChatEvent::text(0, "two ")),
            Err(Error::unavailable("the scripted model broke off, as it was asked to").with_reason("stream_broken")),
        ])),
        _ => {
            let images = last.parts.iter().filter(|part| matches!(part.content, Some(Content::Image(_)))).count();
            let seen = if images > 0 { format!(", with {images} images") } else { String::new() };
            words(request, &format!("you said: {text}{seen}"))
        }
    })
}

/// The text word by word, in each choice, cut at `max_tokens` words.
fn words(request: &ChatRequest, text: &str) -> EventStream<ChatEvent> {
    let all: Vec<&str> = text.split_inclusive(' ').collect();
    let limit = request.sampling.as_ref().and_then(|sampling| sampling.max_tokens).map_or(usize::MAX, |max| max as usize);
    let finish = if all.len() > limit { FinishReason::Length } else { FinishReason::Stop };
    let said = &all[..all.len().min(limit)];
    let mut events = Vec::new();
    for choice in 0..request.choices() {
        events.extend(said.iter().map(|word| Ok(ChatEvent::text(choice, *word))));
        events.push(Ok(ChatEvent::finish(choice, finish)));
    }
    events.push(Ok(usage(request, said.len() as u32 * request.choices())));
    Box::pin(stream::iter(events))
}

fn calls(request: &ChatRequest, text: &str) -> EventStream<ChatEvent> {
    let mut events = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let rest = line.trim_start_matches("call").trim();
        let (name, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
        let begin = ToolCallDelta { index: index as u32, id: ids::new("call"), name: name.into(), arguments: String::new() };
        events.push(Ok(ChatEvent::tool_call(0, begin)));
        let arguments = ToolCallDelta { index: index as u32, arguments: arguments.into(), ..ToolCallDelta::default() };
        events.push(Ok(ChatEvent::tool_call(0, arguments)));
    }
    events.push(Ok(ChatEvent::finish(0, FinishReason::ToolCalls)));
    events.push(Ok(usage(request, 5)));
    Box::pin(stream::iter(events))
}

fn usage(request: &ChatRequest, completion_tokens: u32) -> ChatEvent {
    let prompt = request.messages.iter().map(|message| message.joined_text().split_whitespace().count() as u32).sum();
    ChatEvent::usage(Usage { prompt_tokens: prompt, completion_tokens, ..Usage::default() })
}
