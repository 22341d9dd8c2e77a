//! A model whose words are chosen by what it is told.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use llama_stack_core::{
    Code, Context, Deps, Error, EventStream, Inference, Registry, Result,
    forget::{Forget, Keepers},
    page,
};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, CompleteEvent, CompleteRequest, EmbedInput, EmbedRequest, EmbedResponse, Embedding, FinishReason,
    ListModelsRequest, ListModelsResponse, Model, ModelKind, RerankRequest, RerankResponse, RerankResult, TokenLogprob, TokenizeRequest,
    TokenizeResponse, ToolCallDelta, Truncation, Usage, complete_request::Prompt, embed_input, token_logprob::TopLogprob,
};
use tokio::sync::Notify;

use crate::client::PATIENCE;

/// What a test sees of the model, and does to it.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Shared>);

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<ChatRequest>>,
    go_on: Notify,
    dropped: Notify,
}

/// It keeps one thing, of one tenant.
#[async_trait::async_trait]
impl Forget for Script {
    async fn forget(&self, tenant: &str) -> Result<u64> {
        Ok(u64::from(tenant == "acme"))
    }
}

impl Script {
    /// A registry that knows this model as `test::scripted`.
    pub(crate) fn registry(&self) -> Registry {
        let (script, mut registry) = (self.clone(), llama_stack_server::registry());
        crate::shields::add(&mut registry);
        registry.inference.add("test::scripted", move |_: serde_json::Value, deps: Deps| {
            let model = Arc::new(script.clone());
            let keeper: Arc<dyn Forget> = model.clone();
            deps.extensions.get::<Keepers>().expect("the server hands it on").enter(&keeper);
            async move { Ok(model as Arc<dyn Inference>) }
        });
        registry
    }

    pub(crate) fn last_asked(&self) -> ChatRequest {
        self.0.asked.lock().unwrap().last().cloned().expect("nobody asked")
    }

    /// Lets `slow` finish.
    pub(crate) fn go_on(&self) {
        self.0.go_on.notify_one();
    }

    /// Waits until a stream was dropped before its end.
    pub(crate) async fn dropped(&self) {
        tokio::time::timeout(PATIENCE, self.0.dropped.notified()).await.expect("the stream was not dropped");
    }

    /// Waits until the model was asked this.
    pub(crate) async fn was_asked(&self, text: &str) {
        let asked =
            || self.0.asked.lock().unwrap().iter().any(|asked| asked.messages.last().is_some_and(|last| last.joined_text() == text));
        let until = async {
            while !asked() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, until).await.expect("the model was not asked");
    }

    async fn hold(self) -> Result<ChatEvent> {
        self.0.go_on.notified().await;
        Ok(ChatEvent::text(0, " and done"))
    }
}

fn usage() -> Usage {
    Usage { prompt_tokens: 7, completion_tokens: 2, cached_tokens: 3, reasoning_tokens: 0 }
}

fn logprob(token: &str) -> TokenLogprob {
    let top = TopLogprob { token: token.into(), logprob: -0.25, bytes: token.into(), token_id: 5 };
    TokenLogprob { token: token.into(), logprob: -0.25, bytes: token.into(), top: vec![top], token_id: 5 }
}

fn end(choice: u32, reason: FinishReason) -> [Result<ChatEvent>; 2] {
    [Ok(ChatEvent::finish(choice, reason)), Ok(ChatEvent::usage(usage()))]
}

/// Calls a tool.
fn calling(name: &str, arguments: &str) -> EventStream<ChatEvent> {
    let call = ToolCallDelta { index: 0, id: "call_1".into(), name: name.into(), arguments: arguments.into() };
    let events = [Ok(ChatEvent::tool_call(0, call))].into_iter().chain(end(0, FinishReason::ToolCalls));
    Box::pin(stream::iter(events.collect::<Vec<_>>()))
}

fn broken() -> Error {
    Error::unavailable("the model broke off").with_reason("stream_broken").with_source("secret-host:8000 refused")
}

fn over_a_field() -> Error {
    Error::invalid("sampling.top_p", "too far")
}

#[async_trait::async_trait]
impl Inference for Script {
    async fn list_models(&self, _cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = |id: &str, kind: ModelKind| Model { id: id.into(), kind: kind.into(), context_length: 4_096, ..Model::default() };
        let vectors = Model { embedding_dimension: 2, ..model("org/vectors", ModelKind::Embedding) };
        let models = vec![model("parrot", ModelKind::Chat), vectors];
        let (models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn stream_chat(&self, _cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let said = request.messages.last().map(|message| message.joined_text()).unwrap_or_default();
        let n = request.choices();
        let results = request.messages.last().into_iter().flat_map(|message| message.tool_results());
        let searched = results.filter(|result| result.name == "file_search").count() > 0;
        self.0.asked.lock().unwrap().push(request.clone());
        let events: EventStream<ChatEvent> = match said.as_str() {
            "panic" => panic!("the model fell over"),
            "full" => return Err(Error::new(Code::ResourceExhausted, "the queue is full").with_retry_after(Duration::from_secs(2))),
            "fail at once" => Box::pin(stream::iter([Err(broken())])),
            "break" => Box::pin(stream::iter([Ok(ChatEvent::text(0, "Hel")), Err(broken())])),
            "break over a field" => Box::pin(stream::iter([Ok(ChatEvent::text(0, "Hel")), Err(over_a_field())])),
            "cut" => Box::pin(stream::iter([Ok(ChatEvent::text(0, "Hel"))])),
            "tool" => {
                let call = |id: &str, name: &str, arguments: &str| ToolCallDelta {
                    index: 0,
                    id: id.into(),
                    name: name.into(),
                    arguments: arguments.into(),
                };
                let deltas = [call("call_1", "add", ""), call("", "", "{\"a\":"), call("", "", "1}")];
                let deltas = deltas.into_iter().map(|delta| Ok(ChatEvent::tool_call(0, delta)));
                Box::pin(stream::iter(deltas.chain(end(0, FinishReason::ToolCalls)).collect::<Vec<_>>()))
            }
            "calculate" => calling("calculator", "{\"expression\":\"1+1\"}"),
            "search" => calling("file_search", "{\"query\":\"veto\"}"),
            "ask" => calling("ask_clerk", "{\"input\":\"hello\"}"),
            _ if searched => {
                let events = [Ok(ChatEvent::text(0, "He may not ")), Ok(ChatEvent::text(0, "[1]."))];
                Box::pin(stream::iter(events.into_iter().chain(end(0, FinishReason::Stop)).collect::<Vec<_>>()))
            }
            "slow" => {
                let first = stream::iter([Ok(ChatEvent::text(0, "begun"))]);
                Box::pin(first.chain(stream::once(self.clone().hold())).chain(stream::iter(end(0, FinishReason::Stop))))
            }
            "forever" => Box::pin(stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Some((Ok(ChatEvent::text(0, "x")), ()))
            })),
            // More than any socket's buffers hold.
            "flood" => Box::pin(stream::repeat_with(|| Ok(ChatEvent::text(0, "x".repeat(10_000))))),
            "silent" => Box::pin(stream::pending()),
            _ => {
                let mut events = Vec::new();
                for choice in 0..n {
                    for text in ["Hel", "lo"] {
                        let mut event = ChatEvent::text(choice, text);
                        event.logprobs = request.logprobs.then(|| logprob(text)).into_iter().collect();
                        events.push(Ok(event));
                    }
                    events.push(Ok(ChatEvent::finish(choice, FinishReason::Stop)));
                }
                events.push(Ok(ChatEvent::usage(usage())));
                Box::pin(stream::iter(events))
            }
        };
        Ok(Box::pin(Watched { events, script: self.clone(), ended: false }))
    }

    async fn stream_complete(&self, _cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let Some(Prompt::Text(prompt)) = &request.prompt else { return Err(Error::unimplemented("tokens")) };
        if prompt == "break over a field" {
            return Ok(Box::pin(stream::iter([Ok(CompleteEvent::text(0, "Hel")), Err(over_a_field())])));
        }
        let echo = request.echo.then(|| Ok(CompleteEvent::text(0, prompt.clone())));
        let mut first = CompleteEvent::text(0, if request.echo { "!".to_owned() } else { format!("{prompt}!") });
        first.logprobs = request.logprobs.then(|| logprob("!")).into_iter().collect();
        let events = [Ok(first), Ok(CompleteEvent::finish(0, FinishReason::Length)), Ok(CompleteEvent::usage(usage()))];
        Ok(Box::pin(stream::iter(echo.into_iter().chain(events))))
    }

    /// Each word is one, and each tool.
    async fn tokenize(&self, _cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let words = request.messages.iter().map(|message| message.joined_text().split_whitespace().count()).sum::<usize>();
        Ok(TokenizeResponse { tokens: vec![0; words + request.tools.len()], ..TokenizeResponse::default() })
    }

    /// The longest is the best.
    async fn rerank(&self, _cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        let result = |(index, text): (usize, &String)| RerankResult { index: index as u32, score: text.len() as f32 / 100.0 };
        let mut results: Vec<RerankResult> = request.documents.iter().enumerate().map(result).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        results.truncate(request.top_n as usize);
        Ok(RerankResponse { results, usage: Some(usage()) })
    }

    async fn embed(&self, _cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let vector = |index| Embedding { values: vec![index as f32, 0.5] };
        let embeddings = (0..request.inputs.len()).map(vector).collect();
        let long = |input: &EmbedInput| matches!(&input.input, Some(embed_input::Input::Text(text)) if text == "longer than it reads");
        let truncated_inputs = request.inputs.iter().filter(|input| long(input)).count() as u32;
        if truncated_inputs > 0 && request.truncation() != Truncation::End {
            return Err(Error::invalid("inputs[0]", "the text is too long"));
        }
        Ok(EmbedResponse { model: request.model, embeddings, usage: Some(usage()), truncated_inputs })
    }
}

/// Tells the test where a stream is dropped before its end.
struct Watched {
    events: EventStream<ChatEvent>,
    script: Script,
    ended: bool,
}

impl Stream for Watched {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<ChatEvent>>> {
        let event = self.events.as_mut().poll_next(cx);
        self.ended |= matches!(event, Poll::Ready(None));
        event
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            self.script.0.dropped.notify_one();
        }
    }
}
