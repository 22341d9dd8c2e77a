//! The policy on calls, outside the model.

use std::sync::Arc;

use llama_stack_core::{Agents as _, Context, Principal};
use llama_stack_policy::{CedarPolicy, Source};
use llama_stack_proto::v1::{ResumeTurnRequest, ToolResult, ToolStep, Turn, TurnStatus, step::Step, turn_event::Event};

use crate::{
    doubles::Say::{Call, Text},
    world::{World, rest, say, tool_results},
};

const POLICY: &str = r#"
@id("all") permit(principal, action, resource);
@id("no-thirteen") forbid(principal, action == Action::"call", resource) when { resource.name == "add" && context.arguments.whole.hasTag("b") && context.arguments.whole.getTag("b") == 13 };
@id("no-trainees") forbid(principal, action == Action::"call", resource) when { resource.name == "add" && principal.roles.contains("trainee") };
@id("careful") forbid(principal, action == Action::"call_unattended", resource) when { resource.name == "add" && context.seen_untrusted };
"#;

async fn world(answers: Vec<Vec<crate::doubles::Say>>) -> World {
    let policy = CedarPolicy::new(&[Source::new("test.cedar".to_owned(), POLICY.to_owned())]).unwrap();
    World::changed(answers, |parts| parts.policy = Some(Arc::new(policy))).await
}

fn calls(turn: &Turn) -> Vec<ToolStep> {
    turn.steps
        .iter()
        .filter_map(|step| match &step.step {
            Some(Step::Tool(tool)) => Some(tool.clone()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_call_that_the_policy_forbids_does_not_run_and_the_journal_says_by_which() {
    let world = world(vec![vec![Call("a", "add", r#"{"a":1,"b":13}"#), Call("b", "add", r#"{"a":1,"b":2}"#)], vec![Text("well")]]).await;
    let (_, turn) = world.run(say("add")).await;
    assert_eq!((turn.status(), world.hands.calls()), (TurnStatus::Completed, 1));
    let policies: Vec<String> = calls(&turn).into_iter().map(|call| call.policy).collect();
    assert_eq!(policies, ["deny:no-thirteen", "allow:all"]);
    assert!(tool_results(&turn)[0].joined_text().contains("no-thirteen"));
}

#[tokio::test]
async fn what_the_session_has_read_decides_who_is_asked() {
    let add = || vec![Call("", "add", r#"{"a":1,"b":2}"#)];
    let world = world(vec![add(), vec![Text("three")], vec![Call("l", "liar", "{}")], add()]).await;
    let (_, turn) = world.run(say("add")).await;
    assert_eq!((turn.status(), world.hands.calls()), (TurnStatus::Completed, 1));
    // `liar` brings words of a document: from here on `add` wants a person.
    let next = llama_stack_proto::v1::CreateTurnRequest { session_id: turn.session_id, ..say("read, then add again: 1 and 2") };
    let (events, turn) = world.run(next).await;
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    assert_eq!(
        (turn.status(), awaiting.approvals[0].asked_by.as_str(), world.hands.calls()),
        (TurnStatus::AwaitingTools, "policy:careful", 2)
    );
}

/// Who resumes a turn, or a process that goes on with it, lends it no rights.
#[tokio::test]
async fn the_policy_is_asked_for_who_began_the_turn() {
    let mut world = world(vec![vec![Call("q", "ask", "{}")], vec![Call("a", "add", r#"{"a":1,"b":2}"#)], vec![Text("well")]]).await;
    let trainee = Principal { id: "ann".into(), tenant: "acme".into(), roles: vec!["trainee".into()] };
    let master = std::mem::replace(&mut world.cx, Context::new(trainee));
    let (_, turn) = world.run(say("add")).await;
    let results = vec![ToolResult { call_id: "q".into(), ..ToolResult::default() }];
    let resume = ResumeTurnRequest { turn_id: turn.id.clone(), results, ..ResumeTurnRequest::default() };
    rest(world.runtime.resume_turn(&master, resume).await.unwrap()).await;
    let turn = world.turn(&turn.id).await;
    assert_eq!((turn.status(), calls(&turn)[1].policy.as_str(), world.hands.calls()), (TurnStatus::Completed, "deny:no-trainees", 0));
}
