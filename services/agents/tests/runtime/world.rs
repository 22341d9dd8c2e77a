//! A runtime with all around it, on a database file.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use llama_stack_agents::{Runtime, RuntimeParts};
use llama_stack_core::{Agents as _, Context, EventStream, Result, manifest};
use llama_stack_proto::v1::{
    AgentConfig, CreateSessionRequest, CreateTurnRequest, Message, Session, ShieldStep, Step, ToolDefinition, ToolResult, Turn, TurnEvent,
    chat_event, part::Content, step, turn_event::Event,
};
use llama_stack_store::{Durability, Store};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::doubles::{Guards, Hands, Say, Script};

/// Longer than anything here takes that ends, on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub dir: Arc<TempDir>,
    pub store: Store,
    pub runtime: Arc<Runtime>,
    pub script: Arc<Script>,
    pub hands: Arc<Hands>,
    pub guards: Arc<Guards>,
    pub shutdown: CancellationToken,
    pub cx: Context,
}

impl World {
    pub async fn new(answers: Vec<Vec<Say>>) -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()), Script::of(answers), Arc::default()).await
    }

    /// A new process on the same database.
    pub async fn at(dir: Arc<TempDir>, script: Arc<Script>, hands: Arc<Hands>) -> Self {
        Self::with(dir, script, hands, |_| ()).await
    }

    pub async fn changed(answers: Vec<Vec<Say>>, change: impl FnOnce(&mut RuntimeParts)) -> Self {
        Self::with(Arc::new(tempfile::tempdir().unwrap()), Script::of(answers), Arc::default(), change).await
    }

    pub async fn with(dir: Arc<TempDir>, script: Arc<Script>, hands: Arc<Hands>, change: impl FnOnce(&mut RuntimeParts)) -> Self {
        let url = format!("sqlite://{}", dir.path().join("state.db").display());
        let store = Store::open(&url, Durability::Process).await.unwrap();
        let (guards, shutdown) = (Arc::<Guards>::default(), CancellationToken::new());
        let mut parts = RuntimeParts {
            store: store.clone(),
            inference: script.clone(),
            tools: Some(hands.clone()),
            safety: Some(guards.clone()),
            memory: None,
            connect: None,
            policy: None,
            config: manifest::Agents::default(),
            shielding: manifest::Safety::default(),
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
        };
        change(&mut parts);
        let runtime = Runtime::new(parts).unwrap();
        Self { dir, store, runtime, script, hands, guards, shutdown, cx: Context::test("acme") }
    }

    pub async fn session(&self) -> Session {
        self.runtime.create_session(&self.cx, CreateSessionRequest::default()).await.unwrap()
    }

    pub async fn begin(&self, request: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
        self.runtime.create_turn(&self.cx, request).await
    }

    /// Runs a turn to its rest: the events, and the turn.
    pub async fn run(&self, request: CreateTurnRequest) -> (Vec<TurnEvent>, Turn) {
        let events = rest(self.begin(request).await.unwrap()).await;
        let turn = self.turn(&events[0].turn_id).await;
        (events, turn)
    }

    pub async fn turn(&self, id: &str) -> Turn {
        self.runtime.get_turn(&self.cx, llama_stack_proto::v1::GetTurnRequest { id: id.into() }).await.unwrap()
    }
}

/// All tools of [`Hands`], and `ask`, which the client runs.
pub fn config() -> AgentConfig {
    let tools =
        ["add", "repeat", "find", "sleep", "wait", "hang", "hang_retry", "hang_ask", "sulk", "away", "liar"].map(String::from).into();
    let schema = r#"{"type":"object","properties":{"q":{"type":"string"}}}"#;
    AgentConfig { model: "scripted".into(), tools, client_tools: vec![ToolDefinition::new("ask", "", schema)], ..AgentConfig::default() }
}

pub fn say(text: &str) -> CreateTurnRequest {
    CreateTurnRequest { config: Some(config()), input: vec![Message::user(text)], ..CreateTurnRequest::default() }
}

pub fn say_in(session: &Session, text: &str) -> CreateTurnRequest {
    CreateTurnRequest { session_id: session.id.clone(), ..say(text) }
}

/// All events up to the turn's rest; fails rather than hangs.
pub async fn rest(stream: EventStream<TurnEvent>) -> Vec<TurnEvent> {
    let all = stream.map(|event| event.unwrap()).collect();
    tokio::time::timeout(PATIENCE, all).await.expect("the turn does not come to rest")
}

/// Waits until something is so; fails rather than hangs.
pub async fn until(so: impl Fn() -> bool) {
    let came = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, came).await.expect("it did not come about");
}

/// The events' names, in order, without deltas.
pub fn names(events: &[TurnEvent]) -> Vec<&'static str> {
    let name = |event: &TurnEvent| match event.event.as_ref().unwrap() {
        Event::Created(_) => Some("created"),
        Event::StepStarted(_) => Some("started"),
        Event::Delta(_) => None,
        Event::StepCompleted(_) => Some("completed"),
        Event::AwaitingTools(_) => Some("awaiting"),
        Event::Resumed(_) => Some("resumed"),
        Event::Ended(_) => Some("ended"),
    };
    events.iter().filter_map(name).collect()
}

pub fn said(turn: &Turn) -> String {
    let last = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(step::Step::Inference(inference)) => inference.message.clone(),
        _ => None,
    });
    last.unwrap_or_default().joined_text()
}

/// The steps of shields.
pub fn verdicts(turn: &Turn) -> Vec<ShieldStep> {
    let shield = |step: &Step| match &step.step {
        Some(step::Step::Shield(shield)) => Some(shield.clone()),
        _ => None,
    };
    turn.steps.iter().filter_map(shield).collect()
}

/// What the model said last, where it is a refusal.
pub fn refusal(turn: &Turn) -> Option<String> {
    let last = turn.steps.iter().rev().find_map(|step| match &step.step {
        Some(step::Step::Inference(inference)) => inference.message.clone(),
        _ => None,
    });
    match last?.parts.last()?.content.clone()? {
        Content::Refusal(text) => Some(text),
        _ => None,
    }
}

/// All that was said in deltas.
pub fn streamed(events: &[TurnEvent]) -> String {
    let delta = |event: &TurnEvent| match event.event.as_ref()? {
        Event::Delta(delta) => match delta.event.as_ref()?.event.as_ref()? {
            chat_event::Event::Text(text) | chat_event::Event::Reasoning(text) | chat_event::Event::Refusal(text) => Some(text.clone()),
            chat_event::Event::ToolCall(call) => Some(call.arguments.clone()),
            chat_event::Event::Finish(_) | chat_event::Event::Usage(_) => None,
        },
        _ => None,
    };
    events.iter().filter_map(delta).collect()
}

pub fn tool_results(turn: &Turn) -> Vec<ToolResult> {
    let result = |step: &Step| match &step.step {
        Some(step::Step::Tool(tool)) => tool.result.clone(),
        _ => None,
    };
    turn.steps.iter().filter_map(result).collect()
}
