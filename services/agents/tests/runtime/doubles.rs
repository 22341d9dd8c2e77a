//! A model that says what it was told to say, tools with a ledger, and shields.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use llama_stack_core::{Code, Context, Error, EventStream, Inference, Result, Safety, Tools};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, FinishReason, InvokeToolRequest, InvokeToolResponse, ListModelsRequest, ListModelsResponse, ListShieldsRequest,
    ListShieldsResponse, ListToolsRequest, ListToolsResponse, Model, OnInterrupt, Part, RunShieldRequest, RunShieldResponse, Shield, Tool,
    ToolCallDelta, ToolDefinition, Usage, Violation, violation::Level,
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
    /// Tokens that the model has room for; 0: not known.
    pub context: std::sync::atomic::AtomicU32,
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
}

#[async_trait]
impl Inference for Script {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let context_length = self.context.load(std::sync::atomic::Ordering::Relaxed);
        let model = Model { id: "scripted".into(), context_length, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let say = self.answers.lock().unwrap().pop_front().unwrap_or_else(|| vec![Say::Text("done")]);
        let offered = !request.tools.is_empty();
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
        if hangs {
            return Ok(Box::pin(stream::iter(events).chain(stream::pending())));
        }
        events.push(Ok(ChatEvent::finish(0, finish)));
        events.push(Ok(ChatEvent::usage(Usage { prompt_tokens: 10, completion_tokens: 5, ..Usage::default() })));
        Ok(Box::pin(stream::iter(events)))
    }
}

/// `add {a, b}`, `sleep {ms}`, `hang`, `hang_retry` and `hang_ask`, `sulk` (its own failure), `away` (the platform's).
#[derive(Default)]
pub struct Hands {
    /// Of `add`: what it is for.
    pub description: Mutex<String>,
    /// Name, arguments, idempotency key of each call, as they began.
    pub ledger: Mutex<Vec<(String, String, String)>>,
    /// Calls of `hang` and `hang_retry` end at once.
    pub awake: bool,
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
        tools.extend(["sleep", "hang", "sulk", "away", "liar"].map(|name| tool(name, "", OnInterrupt::Unspecified)));
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

/// `words` forbids what holds `bad`; `broken` cannot judge.
#[derive(Default)]
pub struct Guards {
    pub judged: Mutex<Vec<RunShieldRequest>>,
}

#[async_trait]
impl Safety for Guards {
    async fn list_shields(&self, _: &Context, _: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shields = ["words", "broken"].map(|id| Shield { id: id.into(), ..Shield::default() }).into();
        Ok(ListShieldsResponse { shields, next_page_token: String::new() })
    }

    async fn run_shield(&self, _: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        if request.shield_id == "broken" {
            return Err(Error::internal("out of order"));
        }
        let bad = request.messages.last().unwrap().joined_text().contains("bad");
        self.judged.lock().unwrap().push(request);
        let violation = Violation { level: Level::Error.into(), user_message: "Not that.".into(), ..Violation::default() };
        Ok(RunShieldResponse { violation: bad.then_some(violation), scores: Vec::new(), ..Default::default() })
    }
}
