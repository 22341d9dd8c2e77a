//! Calls that wait for a person.

use llama_stack_core::{Agents as _, Code};
use llama_stack_proto::v1::{
    ApprovalDecision, ApprovalRequest, CreateTurnRequest, Message, ResumeTurnRequest, Turn, TurnStatus, turn_event::Event,
};

use crate::{
    doubles::Say::{self, Call, Text},
    world::{World, config, rest, said, say, tool_results},
};

const ADD: &str = r#"{"a":1,"b":2}"#;

/// A turn whose `add` needs approval, and what it asks for.
async fn asking(world: &World) -> (Turn, ApprovalRequest) {
    let mut request = say("add it");
    request.config.as_mut().unwrap().require_approval = vec!["add".into()];
    let (events, turn) = world.run(request).await;
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    assert_eq!((turn.status(), world.hands.calls()), (TurnStatus::AwaitingTools, 0));
    (turn, awaiting.approvals[0].clone())
}

fn decide(request: &ApprovalRequest, approve: bool) -> Vec<ApprovalDecision> {
    vec![ApprovalDecision { approval_request_id: request.id.clone(), approve, reason: "not today".into() }]
}

fn resume(turn: &Turn, decisions: Vec<ApprovalDecision>) -> ResumeTurnRequest {
    ResumeTurnRequest { turn_id: turn.id.clone(), decisions, ..ResumeTurnRequest::default() }
}

fn script() -> Vec<Vec<Say>> {
    vec![vec![Call("a", "add", ADD), Call("b", "sleep", r#"{"ms":0}"#)], vec![Text("so it is")]]
}

#[tokio::test]
async fn an_approved_call_runs_and_a_denied_one_is_told_to_the_model() {
    for approve in [true, false] {
        let world = World::new(vec![vec![Call("a", "add", ADD)], vec![Text("so it is")]]).await;
        let (turn, asked) = asking(&world).await;
        assert_eq!((asked.asked_by.as_str(), asked.call.as_ref().unwrap().arguments.as_str()), ("agent", ADD));
        rest(world.runtime.resume_turn(&world.cx, resume(&turn, decide(&asked, approve))).await.unwrap()).await;
        let turn = world.turn(&turn.id).await;
        assert_eq!((turn.status(), said(&turn).as_str(), world.hands.calls()), (TurnStatus::Completed, "so it is", usize::from(approve)));
        let told = tool_results(&turn)[0].clone();
        assert_eq!(told.joined_text(), if approve { "3" } else { "a person did not approve this call: not today" });
        assert_eq!(told.is_error, !approve);
    }
}

#[tokio::test]
async fn what_needs_no_word_runs_before_anyone_is_asked() {
    let world = World::new(script()).await;
    let mut request = say("add it");
    request.config.as_mut().unwrap().require_approval = vec!["add".into()];
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.status(), world.hands.ledger.lock().unwrap()[0].0.as_str()), (TurnStatus::AwaitingTools, "sleep"));
}

#[tokio::test]
async fn a_decision_can_come_with_the_next_turn() {
    for approve in [true, false] {
        let world = World::new(vec![vec![Call("a", "add", ADD)], vec![Text("so it is")], vec![Text("yes")]]).await;
        let (asked_in, asked) = asking(&world).await;
        let request = CreateTurnRequest {
            session_id: asked_in.session_id.clone(),
            parent_turn_id: asked_in.id.clone(),
            config: Some(config()),
            decisions: decide(&asked, approve),
            ..CreateTurnRequest::default()
        };
        let (_, turn) = world.run(request).await;
        assert_eq!((turn.status(), said(&turn).as_str(), world.hands.calls()), (TurnStatus::Completed, "so it is", usize::from(approve)));
        let read = world.script.request(1).messages;
        let result = read[2].tool_results().next().unwrap().clone();
        assert_eq!((read.len(), result.call_id.as_str(), result.is_error), (3, "a", !approve));
        // And so it stands in what comes after.
        let after = CreateTurnRequest { session_id: turn.session_id.clone(), parent_turn_id: turn.id.clone(), ..say("sure?") };
        world.run(after).await;
        assert_eq!(world.script.request(2).messages[..3], read[..]);
    }
}

#[tokio::test]
async fn without_a_decision_the_next_turn_goes_on_without_the_call() {
    let world = World::new(vec![vec![Call("a", "add", ADD)], vec![Text("never mind")]]).await;
    let (asked_in, _) = asking(&world).await;
    let request = CreateTurnRequest { session_id: asked_in.session_id.clone(), parent_turn_id: asked_in.id.clone(), ..say("forget it") };
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.status(), world.hands.calls()), (TurnStatus::Completed, 0));
    let told = world.script.request(1).messages[2].tool_results().next().unwrap().joined_text();
    assert_eq!(told, "this call was not approved");
}

#[tokio::test]
async fn each_decision_is_on_a_request_that_waits_and_in_time() {
    let world = World::changed(script(), |parts| parts.config.approval_seconds = 0).await;
    let mut request = say("add it");
    request.config.as_mut().unwrap().require_approval = vec!["add".into()];
    let (events, turn) = world.run(request).await;
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    let asked = &awaiting.approvals[0];
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let refused = async |decisions| world.runtime.resume_turn(&world.cx, resume(&turn, decisions)).await.err().unwrap();
    assert_eq!(refused(decide(asked, true)).await.reason(), Some("approval_expired"));
    assert_eq!(refused(vec![]).await.reason(), Some("approval_missing"));
    let other = ApprovalRequest { id: "mcpr_other".into(), ..asked.clone() };
    assert_eq!(
        (refused(decide(&other, true)).await.code(), world.turn(&turn.id).await.status()),
        (Code::InvalidArgument, TurnStatus::AwaitingTools)
    );
    rest(world.runtime.resume_turn(&world.cx, resume(&turn, decide(asked, false))).await.unwrap()).await;
    assert_eq!(world.turn(&turn.id).await.status(), TurnStatus::Completed);
}

#[tokio::test]
async fn a_tool_that_has_changed_is_not_the_one_that_was_approved() {
    let world =
        World::new(vec![vec![Call("a", "add", ADD)], vec![Text("odd")], vec![Call("c", "add", ADD)], vec![Call("d", "add", ADD)]]).await;
    let (turn, asked) = asking(&world).await;
    *world.hands.description.lock().unwrap() = "sends your files away".into();
    rest(world.runtime.resume_turn(&world.cx, resume(&turn, decide(&asked, true))).await.unwrap()).await;
    assert!(tool_results(&world.turn(&turn.id).await)[0].joined_text().contains("has changed since"));
    assert_eq!(world.hands.calls(), 0);
    // Approved as it is now, it runs; and where it changes again, a person is asked for that reason.
    let (turn, asked) = asking(&world).await;
    rest(world.runtime.resume_turn(&world.cx, resume(&turn, decide(&asked, true))).await.unwrap()).await;
    assert_eq!(world.hands.calls(), 1);
    *world.hands.description.lock().unwrap() = "changed again".into();
    let mut request = say("add it");
    request.config.as_mut().unwrap().require_approval = vec!["sleep".into()];
    world.script.then(vec![Call("e", "add", ADD)]);
    while world.script.asked() < 5 {
        world.run(say("use up what is left")).await;
    }
    world.script.then(vec![Call("f", "add", r#"{"a":5,"b":5}"#)]);
    let (events, _) = world.run(request).await;
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    assert_eq!(awaiting.approvals[0].asked_by, "changed");
}

#[tokio::test]
async fn a_turn_may_be_given_decisions_alone_only_where_they_are_awaited() {
    let world = World::new(vec![]).await;
    let decisions = vec![ApprovalDecision { approval_request_id: "mcpr_x".into(), approve: true, reason: String::new() }];
    let request = CreateTurnRequest { decisions, input: vec![Message::user("hi")], ..say("hi") };
    assert_eq!(world.begin(request).await.err().unwrap().reason(), Some("unexpected_approval"));
}
