use llama_stack_core::{Agents as _, Code};
use llama_stack_proto::v1::{
    CancelTurnRequest, CreateTurnRequest, Message, Part, ResumeTurnRequest, Role, ToolResult, TurnStatus, turn_event::Event,
};

use crate::{
    doubles::Say::{Call, Text},
    world::{World, config, names, rest, said, say, say_in},
};

fn result(id: &str, text: &str) -> ToolResult {
    ToolResult { call_id: id.into(), parts: vec![Part::text(text)], ..ToolResult::default() }
}

fn resume(turn_id: &str, results: Vec<ToolResult>) -> ResumeTurnRequest {
    ResumeTurnRequest { turn_id: turn_id.into(), results, ..ResumeTurnRequest::default() }
}

/// The server's calls run first, then the turn waits for the client's.
#[tokio::test]
async fn a_turn_waits_for_its_client_and_goes_on() {
    let calls = vec![Call("a", "ask", r#"{"q":"name?"}"#), Call("b", "add", r#"{"a":1,"b":1}"#)];
    let world = World::new(vec![calls, vec![Text("hello Ann")]]).await;
    let (events, turn) = world.run(say("go")).await;
    assert_eq!(names(&events), ["created", "started", "completed", "started", "completed", "started", "awaiting"]);
    assert_eq!((turn.status(), world.hands.calls()), (TurnStatus::AwaitingTools, 1));
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("no call is awaited") };
    assert_eq!(awaiting.calls.iter().map(|call| call.id.as_str()).collect::<Vec<_>>(), ["a"]);

    for (results, named) in [(vec![], "call a"), (vec![result("a", "x"), result("z", "x")], "\"z\""), (vec![result("b", "x")], "\"b\"")] {
        let error = world.runtime.resume_turn(&world.cx, resume(&turn.id, results)).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(named), "{}", error.message());
    }
    let stream = world.runtime.resume_turn(&world.cx, resume(&turn.id, vec![result("a", "Ann")])).await.unwrap();
    let events = rest(stream).await;
    assert_eq!(names(&events), ["resumed", "started", "completed", "ended"]);
    assert_eq!(events[0].sequence, 8, "the numbers go on");
    let told: Vec<String> = world.script.request(1).messages[2].tool_results().map(|result| result.joined_text()).collect();
    assert_eq!(told, ["Ann", "2"], "in call order");
    assert_eq!(said(&world.turn(&turn.id).await), "hello Ann");

    let again = world.runtime.resume_turn(&world.cx, resume(&turn.id, vec![result("a", "Ann")])).await.err().unwrap();
    assert_eq!((again.code(), again.reason()), (Code::FailedPrecondition, Some("turn_not_awaiting")));
}

/// As `/v1/responses` does it: `previous_response_id` and the outputs.
#[tokio::test]
async fn results_may_come_as_the_input_of_a_new_turn() {
    let calls = vec![Call("a", "ask", r#"{"q":"name?"}"#), Call("b", "add", r#"{"a":1,"b":1}"#)];
    let world = World::new(vec![calls, vec![Text("hello Ann")], vec![Text("bye Ann")]]).await;
    let (_, parent) = world.run(say("go")).await;
    let next =
        |input| CreateTurnRequest { parent_turn_id: parent.id.clone(), config: Some(config()), input, ..CreateTurnRequest::default() };

    let error = world.begin(next(vec![Message::user("well?")])).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some("tool_result_missing")));
    let error = world.begin(next(vec![Message::tool(vec![result("a", "Ann"), result("b", "2")])])).await.err().unwrap();
    assert_eq!(error.field(), Some("input[0].parts[1].call_id"));

    let (_, child) = world.run(next(vec![Message::tool(vec![result("a", "Ann")])])).await;
    assert_eq!((child.status(), said(&child).as_str()), (TurnStatus::Completed, "hello Ann"));
    assert_eq!(child.session_id, parent.session_id);
    assert_eq!(world.turn(&parent.id).await.status(), TurnStatus::AwaitingTools, "the parent stays as it is");

    // What becomes of the parent later does not change what its child has seen.
    world.runtime.cancel_turn(&world.cx, CancelTurnRequest { id: parent.id.clone() }).await.unwrap();
    let (_, third) = world.run(CreateTurnRequest { parent_turn_id: child.id.clone(), ..say("bye") }).await;
    assert_eq!(third.status(), TurnStatus::Completed);
    let before = world.script.request(1).messages;
    let after = world.script.request(2).messages;
    assert_eq!(after[..before.len()], before[..], "what the model has read is a prefix of what it reads next");
    let roles: Vec<Role> = after.iter().map(|message| message.role()).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::Assistant, Role::User]);
}

#[tokio::test]
async fn a_waiting_turn_can_be_cancelled_and_its_history_stays_paired() {
    let world = World::new(vec![vec![Call("a", "ask", "{}")]]).await;
    let session = world.session().await;
    let (_, turn) = world.run(say_in(&session, "go")).await;
    for _ in 0..2 {
        let cancelled = world.runtime.cancel_turn(&world.cx, CancelTurnRequest { id: turn.id.clone() }).await.unwrap();
        assert_eq!(cancelled.status(), TurnStatus::Cancelled);
    }
    world.run(say_in(&session, "never mind")).await;
    let messages = world.script.request(1).messages;
    let result = messages[2].tool_results().next().unwrap();
    assert!(result.call_id == "a" && result.is_error);
}
