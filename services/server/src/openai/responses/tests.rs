use llama_stack_proto::v1::{
    AwaitingTools, ChatEvent, FinishReason, InferenceStep, Message, Part, Role, Step, StepDelta, ToolCall, ToolCallDelta, Turn, TurnEvent,
    TurnStatus, Usage, part::Content, step::Step as StepKind, turn_event::Event as Happened,
};
use serde_json::{Value, json};

use super::{items, request::CreateResponse, response::Response, transcript::Transcript};

fn event(event: Happened) -> TurnEvent {
    TurnEvent { turn_id: "turn_1".into(), event: Some(event), ..TurnEvent::default() }
}

fn step(message: Option<Message>) -> Step {
    let usage = Some(Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() });
    let inference = InferenceStep { message, usage, ..InferenceStep::default() };
    Step { id: "step_9".into(), step: Some(StepKind::Inference(inference)), ..Step::default() }
}

fn delta(chat: ChatEvent) -> TurnEvent {
    event(Happened::Delta(StepDelta { step_id: "step_9".into(), event: Some(chat) }))
}

/// What the model said: thinking, text, a call; in pieces.
fn pieces() -> Vec<ChatEvent> {
    let call = |id: &str, name: &str, arguments: &str| {
        ChatEvent::tool_call(0, ToolCallDelta { index: 0, id: id.into(), name: name.into(), arguments: arguments.into() })
    };
    vec![
        ChatEvent::new(0, llama_stack_proto::v1::chat_event::Event::Reasoning("hm".into())),
        ChatEvent::text(0, "Let me "),
        ChatEvent::text(0, "see."),
        call("call_1", "look", ""),
        call("", "", "{\"a\":"),
        call("", "", "1}"),
        ChatEvent::finish(0, FinishReason::ToolCalls),
    ]
}

fn said() -> Message {
    let parts =
        vec![Part::new(Content::Reasoning("hm".into())), Part::text("Let me see."), ToolCall::new("call_1", "look", "{\"a\":1}").into()];
    Message::new(Role::Assistant, parts)
}

fn run(transcript: &mut Transcript, events: Vec<TurnEvent>) -> Vec<Value> {
    events.into_iter().flat_map(|event| transcript.push(event)).map(|(_, value)| value).collect()
}

fn begun() -> Vec<TurnEvent> {
    let turn = Turn { id: "turn_1".into(), status: TurnStatus::InProgress.into(), store: true, ..Turn::default() };
    vec![event(Happened::Created(Box::new(turn))), event(Happened::StepStarted(step(None)))]
}

fn awaiting() -> Vec<TurnEvent> {
    vec![event(Happened::StepCompleted(step(Some(said())))), event(Happened::AwaitingTools(AwaitingTools::default()))]
}

#[test]
fn events_come_in_the_order_of_the_openai_api() {
    let mut transcript = Transcript::default();
    let events: Vec<TurnEvent> = begun().into_iter().chain(pieces().into_iter().map(delta)).chain(awaiting()).collect();
    let lines = run(&mut transcript, events);
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap().trim_start_matches("response.")).collect();
    assert_eq!(
        kinds,
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    let numbers: Vec<u64> = lines.iter().map(|line| line["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..lines.len() as u64).collect::<Vec<_>>());
}

#[test]
fn what_is_streamed_is_what_is_read_back() {
    let mut transcript = Transcript::default();
    let events: Vec<TurnEvent> = begun().into_iter().chain(pieces().into_iter().map(delta)).chain(awaiting()).collect();
    let lines = run(&mut transcript, events);
    let done: Vec<&Value> = lines.iter().filter(|line| line["type"] == "response.output_item.done").map(|line| &line["item"]).collect();
    let last = &lines.last().unwrap()["response"];
    assert_eq!(json!(done), last["output"]);

    let turn = Turn { id: "turn_1".into(), status: TurnStatus::AwaitingTools.into(), steps: vec![step(Some(said()))], ..Turn::default() };
    assert_eq!(json!(Response::new(&turn))["output"], last["output"]);
    assert_eq!(last["usage"]["total_tokens"], 5);
}

/// Also where the answer is cut off, in its last item alone.
#[test]
fn an_item_that_is_not_whole_says_so() {
    let finished = |reason: FinishReason| {
        let mut done = step(Some(said()));
        if let Some(StepKind::Inference(inference)) = &mut done.step {
            inference.set_finish_reason(reason);
        }
        let turn = Turn { id: "turn_1".into(), status: TurnStatus::Incomplete.into(), steps: vec![done.clone()], ..Turn::default() };
        let live = begun().into_iter().chain(pieces().into_iter().map(delta)).chain([event(Happened::StepCompleted(done))]);
        let lines = run(&mut Transcript::default(), live.chain([event(Happened::Ended(Box::new(turn)))]).collect());
        let done: Vec<&Value> = lines.iter().filter(|line| line["type"] == "response.output_item.done").map(|line| &line["item"]).collect();
        assert_eq!(json!(done), lines.last().unwrap()["response"]["output"]);
        done.iter().map(|item| item["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(finished(FinishReason::Length), ["completed", "completed", "incomplete"]);
    assert_eq!(finished(FinishReason::ToolCalls), ["completed", "completed", "completed"]);
}

#[test]
fn a_watcher_who_missed_the_deltas_gets_the_same_items() {
    let whole = |events: Vec<TurnEvent>| run(&mut Transcript::default(), events).last().unwrap()["response"]["output"].clone();
    let live = begun().into_iter().chain(pieces().into_iter().map(delta)).chain(awaiting()).collect();
    let late = begun().into_iter().chain(awaiting()).collect();
    assert_eq!(whole(live), whole(late));
}

#[test]
fn an_input_of_items_pairs_calls_and_outputs() {
    let input = json!([
        { "role": "developer", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "input_text", "text": "Both?" }] },
        { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" },
        { "type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c1", "output": "one" },
        { "type": "function_call_output", "call_id": "c2", "output": "two" },
    ]);
    let messages = items::messages(serde_json::from_value(input).unwrap()).unwrap();
    let roles: Vec<Role> = messages.iter().map(Message::role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool]);
    let names: Vec<&str> = messages[3].tool_results().map(|result| result.name.as_str()).collect();
    assert_eq!(names, ["f", "g"]);
    assert_eq!(items::input("turn_1", &messages).len(), 6);
}

#[test]
fn what_is_not_here_is_refused_by_name() {
    let refused = |extra: Value| {
        let mut body = json!({ "model": "m", "input": "hi" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value::<CreateResponse>(body).unwrap().into_turn().unwrap_err()
    };
    assert_eq!(refused(json!({ "background": true })).field(), Some("background"));
    assert_eq!(refused(json!({ "tools": [{ "type": "web_search" }] })).field(), Some("tools[0].type"));
    assert_eq!(refused(json!({ "input": [{ "type": "item_reference", "id": "x" }] })).field(), Some("input[0].type"));
    assert_eq!(refused(json!({ "input": [] })).field(), Some("input"));
    assert_eq!(refused(json!({ "tool_choice": 3 })).field(), Some("tool_choice"));
    assert_eq!(refused(json!({ "truncation": "auto" })).code(), llama_stack_core::Code::Unimplemented);
}
