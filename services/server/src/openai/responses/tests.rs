//! What the view promises, without a server: the tests over real sockets are in `tests/`.

mod requests;
mod transcripts;

use llama_stack_proto::v1::{
    AgentConfig, ChatEvent, FinishReason, InferenceStep, Message, Part, Role, Step, StepDelta, TokenLogprob, ToolCall, ToolCallDelta,
    ToolDefinition, Turn, TurnEvent, TurnStatus, Usage, chat_event::Event as Chat, part::Content, step::Step as StepKind,
    turn_event::Event as Happened,
};
use prost_types::Timestamp;
use serde_json::Value;

use super::transcript::Transcript;

const TURN: &str = "turn_0123456789abcdef0123456789abcdef";

fn event(event: Happened) -> TurnEvent {
    TurnEvent { turn_id: TURN.into(), event: Some(event), ..TurnEvent::default() }
}

fn open(index: u32, kind: StepKind) -> Step {
    Step { id: format!("step_{index}"), index, step: Some(kind), ..Step::default() }
}

fn done(index: u32, kind: StepKind) -> Step {
    Step { ended: Some(Timestamp::default()), ..open(index, kind) }
}

fn delta(chat: ChatEvent) -> TurnEvent {
    event(Happened::Delta(StepDelta { step_id: "step_0".into(), event: Some(chat) }))
}

/// What the model said: thinking, text, a call of the client's; in pieces.
fn pieces() -> Vec<ChatEvent> {
    let call = |id: &str, name: &str, arguments: &str| {
        ChatEvent::tool_call(0, ToolCallDelta { index: 0, id: id.into(), name: name.into(), arguments: arguments.into() })
    };
    let logprob = |token: &str| TokenLogprob { token: token.into(), logprob: -0.5, ..TokenLogprob::default() };
    let text = |text: &str, tokens: &[&str]| ChatEvent {
        logprobs: tokens.iter().map(|token| logprob(token)).collect(),
        ..ChatEvent::text(0, text)
    };
    vec![
        ChatEvent::new(0, Chat::Reasoning("hm".into())),
        text("Let me ", &["Let", " me "]),
        text("sée.", &["sée."]),
        call("call_1", "look", ""),
        call("", "", "{\"a\":"),
        call("", "", "1}"),
        ChatEvent::finish(0, FinishReason::ToolCalls),
    ]
}

/// The same as a whole, with how it came.
fn said(finish_reason: FinishReason) -> InferenceStep {
    let parts =
        vec![Part::new(Content::Reasoning("hm".into())), Part::text("Let me sée."), ToolCall::new("call_1", "look", "{\"a\":1}").into()];
    InferenceStep {
        message: Some(Message::new(Role::Assistant, parts)),
        usage: Some(Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() }),
        finish_reason: finish_reason.into(),
        logprobs: pieces().into_iter().flat_map(|event| event.logprobs).collect(),
        pieces: vec![2, 7, 5, 0, 5, 2],
        piece_logprobs: vec![0, 2, 1, 0, 0, 0],
        ..InferenceStep::default()
    }
}

fn inference(step: InferenceStep) -> StepKind {
    StepKind::Inference(step)
}

/// A turn that runs, with a function of the client's.
fn turn() -> Turn {
    let config = AgentConfig {
        model: "m".into(),
        client_tools: vec![ToolDefinition::new("look", "", "")],
        tools: vec!["web_search".into(), "calculator".into()],
        ..AgentConfig::default()
    };
    Turn { id: TURN.into(), status: TurnStatus::InProgress.into(), store: true, config: Some(config), ..Turn::default() }
}

fn ended(status: TurnStatus, steps: Vec<Step>) -> Turn {
    let mut turn = Turn { steps, ended: Some(Timestamp::default()), ..turn() };
    turn.set_status(status);
    turn
}

fn begun() -> Vec<TurnEvent> {
    vec![event(Happened::Created(Box::new(turn())))]
}

fn run(events: Vec<TurnEvent>) -> Vec<Value> {
    let mut transcript = Transcript::default();
    events.into_iter().flat_map(|event| transcript.push(event)).map(|(_, value)| value).collect()
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["sequence_number"].as_u64().unwrap()).collect()
}

/// Items as they were when they were done, in the order of the output.
fn items_done(lines: &[Value]) -> Vec<Value> {
    let mut done: Vec<&Value> = lines.iter().filter(|line| line["type"] == "response.output_item.done").collect();
    done.sort_by_key(|line| line["output_index"].as_u64());
    done.into_iter().map(|line| line["item"].clone()).collect()
}
