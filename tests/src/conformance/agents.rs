//! What every `Agents` promises. Behind it are the scripted model and the calculator.
//!
//! ```text
//! resources  agents and sessions: made, read, changed, listed, deleted, and whose they are
//! streams    what a turn tells: its events, watching again, repetitions, who goes away
//! turns      what a turn does: waiting for its client, cancelling, its history, its limits, leaving nothing
//! refusals   what is not begun, and what is said then
//! ```
//!
//! Each promise is kept to a tenant of its own, so that all of them hold in one store, at once and again.

pub mod refusals;
pub mod resources;
pub mod streams;
pub mod turns;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use llama_stack_core::{Agents, Code, Context, EventStream, Result, ids};
use llama_stack_proto::v1::{
    AgentConfig, CreateSessionRequest, CreateTurnRequest, GetTurnRequest, InferenceStep, ListTurnsRequest, Message, Part, Session, Step,
    ToolCall, ToolDefinition, ToolResult, Turn, TurnEvent, step, turn_event::Event,
};
use tokio::time::timeout;

use crate::scripted::MODEL;

/// Far longer than any turn here takes: it only tells "late" from "never".
const NEVER: Duration = Duration::from_secs(120);

/// Runs every promise.
pub async fn all(agents: Arc<dyn Agents>) {
    resources::all(agents.clone()).await;
    streams::all(agents.clone()).await;
    turns::all(agents.clone()).await;
    refusals::all(agents).await;
}

/// A caller whom nobody knows yet.
fn somebody() -> Context {
    Context::test(&ids::new("tenant"))
}

/// The calculator, and `ask`, which the client runs.
fn config() -> AgentConfig {
    let schema = r#"{"type":"object","properties":{"q":{"type":"string"}}}"#;
    let client_tools = vec![ToolDefinition::new("ask", "", schema)];
    AgentConfig { model: MODEL.into(), tools: vec!["calculator".into()], client_tools, ..AgentConfig::default() }
}

fn say(text: &str) -> CreateTurnRequest {
    CreateTurnRequest { config: Some(config()), input: vec![Message::user(text)], ..CreateTurnRequest::default() }
}

fn say_in(session: &Session, text: &str) -> CreateTurnRequest {
    CreateTurnRequest { session_id: session.id.clone(), ..say(text) }
}

async fn session(agents: &Arc<dyn Agents>, cx: &Context) -> Session {
    agents.create_session(cx, CreateSessionRequest::default()).await.unwrap()
}

async fn turn(agents: &Arc<dyn Agents>, cx: &Context, id: &str) -> Result<Turn> {
    agents.get_turn(cx, GetTurnRequest { id: id.into() }).await
}

async fn turns_of(agents: &Arc<dyn Agents>, cx: &Context, session: &Session) -> Vec<Turn> {
    let request = ListTurnsRequest { session_id: session.id.clone(), ..ListTurnsRequest::default() };
    agents.list_turns(cx, request).await.unwrap().turns
}

/// All events up to the turn's rest; fails rather than hangs.
async fn rest(stream: EventStream<TurnEvent>) -> Vec<TurnEvent> {
    let all = stream.map(|event| event.unwrap()).collect();
    timeout(NEVER, all).await.expect("the turn does not come to rest")
}

/// Runs a turn to its rest: the events, and the turn as it is kept.
async fn run(agents: &Arc<dyn Agents>, cx: &Context, request: CreateTurnRequest) -> (Vec<TurnEvent>, Turn) {
    let events = rest(agents.create_turn(cx, request).await.unwrap()).await;
    let kept = turn(agents, cx, &events[0].turn_id).await.unwrap();
    (events, kept)
}

/// Begins a turn: its id, and the rest of its stream.
async fn begin(agents: &Arc<dyn Agents>, cx: &Context, request: CreateTurnRequest) -> (String, EventStream<TurnEvent>) {
    let mut stream = agents.create_turn(cx, request).await.unwrap();
    let created = stream.next().await.unwrap().unwrap();
    (created.turn_id, stream)
}

fn is_delta(event: &TurnEvent) -> bool {
    matches!(event.event, Some(Event::Delta(_)))
}

/// What survives of the events.
fn journal(events: &[TurnEvent]) -> Vec<TurnEvent> {
    events.iter().filter(|event| !is_delta(event)).cloned().collect()
}

/// The journal in words.
fn names(events: &[TurnEvent]) -> Vec<&'static str> {
    let name = |event: &TurnEvent| match event.event.as_ref().unwrap() {
        Event::Created(_) => "created",
        Event::StepStarted(_) => "started",
        Event::Delta(_) => "delta",
        Event::StepCompleted(_) => "completed",
        Event::AwaitingTools(_) => "awaiting",
        Event::Resumed(_) => "resumed",
        Event::Ended(_) => "ended",
    };
    journal(events).iter().map(name).collect()
}

/// The turn that the last event holds.
fn ended(events: &[TurnEvent]) -> Turn {
    match events.last().and_then(|event| event.event.clone()) {
        Some(Event::Ended(turn)) => *turn,
        _ => panic!("the last event is not the end: {:?}", names(events)),
    }
}

/// The calls that the last event waits for.
fn awaited(events: &[TurnEvent]) -> Vec<ToolCall> {
    match events.last().and_then(|event| event.event.clone()) {
        Some(Event::AwaitingTools(awaiting)) => awaiting.calls,
        _ => panic!("nothing is awaited: {:?}", names(events)),
    }
}

/// What the model said last.
fn said(turn: &Turn) -> String {
    inferences(turn).last().and_then(|inference| inference.message.clone()).unwrap_or_default().joined_text()
}

fn inferences(turn: &Turn) -> Vec<InferenceStep> {
    let inference = |step: &Step| match &step.step {
        Some(step::Step::Inference(inference)) => Some(inference.clone()),
        _ => None,
    };
    turn.steps.iter().filter_map(inference).collect()
}

/// Waits for a stream's end, whatever it ends with; fails rather than hangs.
async fn comes_to_an_end(stream: EventStream<TurnEvent>) {
    timeout(NEVER, stream.count()).await.expect("the stream does not end");
}

fn result(call_id: &str, text: &str) -> ToolResult {
    ToolResult { call_id: call_id.into(), parts: vec![Part::text(text)], ..ToolResult::default() }
}

fn code<T>(result: Result<T>) -> Code {
    result.err().expect("it was accepted").code()
}
