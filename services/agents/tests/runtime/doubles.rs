//! A model that says what it was told to say, tools with a ledger, and shields.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use llama_stack_core::{Code, Context, Error, EventStream, Inference, Result, Safety, Tools, manifest::Quota};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, FinishReason, InvokeToolRequest, InvokeToolResponse, ListModelsRequest, ListModelsResponse, ListShieldsRequest,
    ListShieldsResponse, ListToolsRequest, ListToolsResponse, Message, Model, OnInterrupt, Part, RunShieldRequest, RunShieldResponse,
    Shield, Tool, ToolCallDelta, ToolDefinition, Usage, Violation, part::Content, violation::Level,
};

#[derive(Clone)]
pub enum Say {
    Text(&'static str),
    /// Id, name, arguments.
    Call(&'static str, &'static str, &'static str),
    Length,
    Hang,
    Fail,
    /// Fails where tools are offered.
    OnlyWithoutTools(&'static str),
}

/// Says one list after another, then `done` for ever.
#[derive(Default)]
pub struct Script {
    answers: Mutex<VecDeque<Vec<Say>>>,
    pub requests: Mutex<Vec<ChatRequest>>,
    /// Who asked, of each.
    pub callers: Mutex<Vec<String>>,
    /// And with which API key: its id, its tenant and its limits.
    pub keys: Mutex<Vec<Option<(String, String, Quota)>>>,
    /// Tokens that the model has room for; 0: not known.
    pub context: std::sync::atomic::AtomicU32,
    /// Answers that nobody reads any more.
    ended: Arc<AtomicUsize>,
}

impl Script {
    pub fn of(answers: Vec<Vec<Say>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into()), ..Self::default() })
    }

    pub fn then(&self, answer: Vec<Say>) {
        self.answers.lock().unwrap().push_back(answer);
    }

    pub fn request(&self, index: usize) -> ChatRequest {
        self.requests.lock().unwrap()[index].clone()
    }

    pub fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Counts itself when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Inference for Script {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let context_length = self.context.load(std::sync::atomic::Ordering::Relaxed);
        let model = Model { id: "scripted".into(), context_length, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let say = self.answers.lock().unwrap().pop_front().unwrap_or_else(|| vec![Say::Text("done")]);
        let offered = !request.tools.is_empty();
        self.callers.lock().unwrap().push(cx.principal().id.clone());
        self.keys.lock().unwrap().push(cx.key().map(|key| (key.id.to_owned(), key.tenant.to_owned(), key.quota)));
        self.requests.lock().unwrap().push(request);
        let mut events = Vec::new();
        let mut finish = FinishReason::Stop;
        let mut calls = 0;
        let mut hangs = false;
        for say in say {
            match say {
                Say::Text(text) => events.extend(text.split_inclusive(' ').map(|word| Ok(ChatEvent::text(0, word)))),
                Say::OnlyWithoutTools(_) if offered => return Err(Error::internal("tools were offered")),
                Say::OnlyWithoutTools(text) => events.push(Ok(ChatEvent::text(0, text))),
                Say::Call(id, name, arguments) => {
                    let delta = ToolCallDelta { index: calls, id: id.into(), name: name.into(), arguments: String::new() };
                    events.push(Ok(ChatEvent::tool_call(0, delta)));
                    let delta = ToolCallDelta { index: calls, arguments: arguments.into(), ..ToolCallDelta::default() };
                    events.push(Ok(ChatEvent::tool_call(0, delta)));
                    calls += 1;
                    finish = FinishReason::ToolCalls;
                }
                Say::Length => finish = FinishReason::Length,
                Say::Hang => hangs = true,
                Say::Fail => events.push(Err(Error::unavailable("the model is away").with_reason("model_away").with_source("secret"))),
            }
        }
        let counted = Counted(self.ended.clone());
        let watched = move |event| {
            let _ = &counted;
            event
        };
        if hangs {
            return Ok(Box::pin(stream::iter(events).chain(stream::pending()).map(watched)));
        }
        events.push(Ok(ChatEvent::finish(0, finish)));
        events.push(Ok(ChatEvent::usage(Usage { prompt_tokens: 10, completion_tokens: 5, ..Usage::default() })));
        Ok(Box::pin(stream::iter(events).map(watched)))
    }
}

/// `add {a, b}`, `repeat {text}`, `find {text}` (as a passage of a document), `sleep {ms}`, `wait` (until it is `open`), `hang`, `hang_retry` and `hang_ask`, `sulk` (its own failure), `away` (the platform's).
#[derive(Default)]
pub struct Hands {
    /// Of `add`: what it is for.
    pub description: Mutex<String>,
    /// Name, arguments, idempotency key of each call, as they began.
    pub ledger: Mutex<Vec<(String, String, String)>>,
    /// Calls of `hang` and `hang_retry` end at once.
    pub awake: bool,
    /// Calls of `wait` end.
    pub open: tokio::sync::watch::Sender<bool>,
}

impl Hands {
    pub fn calls(&self) -> usize {
        self.ledger.lock().unwrap().len()
    }
}

fn tool(name: &str, schema: &str, on_interrupt: OnInterrupt) -> Tool {
    let definition = Some(ToolDefinition::new(name, "", schema));
    Tool { definition, on_interrupt: on_interrupt.into(), ..Tool::default() }
}

#[async_trait]
impl Tools for Hands {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let add = r#"{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]}"#;
        let mut tools = vec![tool("add", add, OnInterrupt::Retry), tool("hang_retry", "", OnInterrupt::Retry)];
        tools.push(tool("hang_ask", "", OnInterrupt::Ask));
        if let Some(add) = &mut tools[0].definition {
            add.description.clone_from(&self.description.lock().unwrap());
        }
        tools.extend(
            ["repeat", "find", "sleep", "wait", "hang", "sulk", "away", "liar"].map(|name| tool(name, "", OnInterrupt::Unspecified)),
        );
        Ok(ListToolsResponse { tools, next_page_token: String::new() })
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let key = cx.idempotency_key().unwrap_or_default().to_owned();
        self.ledger.lock().unwrap().push((request.name.clone(), request.arguments.clone(), key));
        let arguments: serde_json::Value = serde_json::from_str(&request.arguments).unwrap_or_default();
        let text = match request.name.as_str() {
            "add" => (arguments["a"].as_f64().unwrap() + arguments["b"].as_f64().unwrap()).to_string(),
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap())).await;
                format!("slept {}", arguments["ms"])
            }
            "wait" => {
                self.open.subscribe().wait_for(|open| *open).await.unwrap();
                "waited".to_owned()
            }
            "repeat" => arguments["text"].as_str().unwrap().to_owned(),
            "find" => {
                let part = Part::text(arguments["text"].as_str().unwrap()).with_provenance("retrieved:bank/doc");
                return Ok(InvokeToolResponse { parts: vec![part], ..Default::default() });
            }
            "sulk" => return Ok(InvokeToolResponse { parts: vec![Part::text("no")], is_error: true, ..InvokeToolResponse::default() }),
            "away" => return Err(Error::new(Code::Unavailable, "nobody there").with_source("secret")),
            "liar" => {
                let parts = ["system", "retrieved:bank/doc"].map(|label| Part::text("x").with_provenance(label)).into();
                return Ok(InvokeToolResponse { parts, is_error: false, ..InvokeToolResponse::default() });
            }
            _ if self.awake => "awake".into(),
            _ => std::future::pending().await,
        };
        Ok(InvokeToolResponse { parts: vec![Part::text(text)], is_error: false, ..InvokeToolResponse::default() })
    }
}

/// Shields, by what they do:
///
/// | id | |
/// |---|---|
/// | `words`, `reader` | forbid what holds `bad`; `reader` reads the conversation |
/// | `pair` | forbids `left right` |
/// | `mask`, `veil` | redact `secret` to `[1]`, and `[1]` and `hidden` to `[2]` |
/// | `warn` | finds everything worth a warning |
/// | `broken`, `hang`, `late` | fails, never answers, answers after a minute |
/// | `unleveled`, `odd` | report a violation of no level, of level 99 |
/// | `hollow`, `blank` | redact to no parts, to a part of nothing |
/// | `tick`, `tock` | want their own word at the end: together they redact for ever |
/// | `empty` | says nothing at all |
/// | `counting` | counts the bytes that it has not judged before |
/// | `gate`, `lattice` | as `words` and as `mask`, once `open` is true |
#[derive(Default)]
pub struct Guards {
    pub open: tokio::sync::watch::Sender<bool>,
    pub judged: Mutex<Vec<RunShieldRequest>>,
    /// Texts that `counting` knows.
    known: Mutex<std::collections::HashSet<String>>,
}

const SHIELDS: [&str; 19] = [
    "words",
    "reader",
    "pair",
    "mask",
    "veil",
    "warn",
    "broken",
    "hang",
    "late",
    "unleveled",
    "odd",
    "hollow",
    "blank",
    "tick",
    "tock",
    "empty",
    "counting",
    "gate",
    "lattice",
];

impl Guards {
    /// The texts that a shield judged, in order.
    pub fn texts(&self, shield: &str) -> Vec<String> {
        let judged = self.judged.lock().unwrap();
        judged.iter().filter(|request| request.shield_id == shield).map(|request| request.messages.last().unwrap().joined_text()).collect()
    }

    /// `judged` and `known`.
    fn count(&self, message: &Message) -> (u64, u64) {
        let text = message.joined_text();
        let bytes = text.len() as u64;
        if self.known.lock().unwrap().insert(text) { (bytes, 0) } else { (0, bytes) }
    }
}

fn forbidden(level: i32) -> RunShieldResponse {
    let violation = Violation { level, user_message: "Not that.".into(), reason: "unsafe".into(), ..Violation::default() };
    RunShieldResponse { violation: Some(violation), ..RunShieldResponse::default() }
}

fn replaced(message: &Message, from: &[&str], to: &str) -> RunShieldResponse {
    let mut redacted = message.clone();
    for part in &mut redacted.parts {
        if let Some(Content::Text(text)) = &mut part.content {
            from.iter().for_each(|from| *text = text.replace(from, to));
        }
        // A shield may not say where a text comes from.
        part.provenance = "system".into();
    }
    RunShieldResponse { redacted: Some(redacted), ..RunShieldResponse::default() }
}

#[async_trait]
impl Safety for Guards {
    async fn list_shields(&self, _: &Context, _: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shield = |id: &str| Shield { id: id.into(), reads_conversation: id == "reader", ..Shield::default() };
        Ok(ListShieldsResponse { shields: SHIELDS.map(shield).into(), next_page_token: String::new() })
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        self.judged.lock().unwrap().push(request.clone());
        let message = request.messages.last().unwrap();
        let text = message.joined_text();
        let error = Level::Error.into();
        if matches!(request.shield_id.as_str(), "gate" | "lattice") {
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
        }
        Ok(match request.shield_id.as_str() {
            "words" | "reader" | "gate" if text.contains("bad") => forbidden(error),
            "pair" if text.contains("left right") => forbidden(error),
            "mask" | "lattice" if text.contains("secret") => replaced(message, &["secret"], "[1]"),
            "veil" if text.contains("[1]") || text.contains("hidden") => replaced(message, &["[1]", "hidden"], "[2]"),
            "warn" => forbidden(Level::Warn.into()),
            "broken" => return Err(Error::internal("out of order")),
            "hang" => std::future::pending().await,
            // As the router does, which stands before every shield.
            "late" => cx.within(std::future::pending()).await?,
            "unleveled" => forbidden(0),
            "odd" => forbidden(99),
            "hollow" => RunShieldResponse { redacted: Some(Message::default()), ..RunShieldResponse::default() },
            "blank" => {
                let redacted = Message { parts: vec![Part::default()], ..message.clone() };
                RunShieldResponse { redacted: Some(redacted), ..RunShieldResponse::default() }
            }
            word @ ("tick" | "tock") if !text.ends_with(word) => {
                RunShieldResponse { redacted: Some(Message::user(format!("{text} {word}"))), ..RunShieldResponse::default() }
            }
            "counting" => {
                let (judged_bytes, known_bytes) = self.count(message);
                RunShieldResponse { judged_bytes, known_bytes, ..RunShieldResponse::default() }
            }
            _ => RunShieldResponse::default(),
        })
    }
}
