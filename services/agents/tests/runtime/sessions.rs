use llama_stack_core::{Agents as _, Code, Context, Principal};
use llama_stack_proto::v1::{
    CreateTurnRequest, DeleteSessionRequest, DeleteTurnRequest, GetSessionRequest, GetTurnRequest, ListTurnsRequest, Message, TurnStatus,
    WatchTurnRequest,
};

use crate::{
    doubles::Say::{Call, Hang, Text},
    world::{World, names, rest, said, say, say_in, until},
};

#[tokio::test]
async fn a_session_remembers_and_branches() {
    let world = World::new(["one", "two", "other"].map(|text| vec![Text(text)]).into()).await;
    let session = world.session().await;
    let (_, first) = world.run(say_in(&session, "1")).await;
    let (_, second) = world.run(say_in(&session, "2")).await;
    assert_eq!(second.parent_turn_id, first.id);
    let texts = |index| world.script.request(index).messages.iter().map(Message::joined_text).collect::<Vec<_>>();
    assert_eq!(texts(1), ["1", "one", "2"]);
    let (_, branch) = world.run(CreateTurnRequest { parent_turn_id: first.id.clone(), ..say("3") }).await;
    assert_eq!((branch.session_id.as_str(), texts(2)), (session.id.as_str(), ["1", "one", "3"].map(String::from).to_vec()));

    let list = |size, token: &str| ListTurnsRequest {
        session_id: session.id.clone(),
        page_size: size,
        page_token: token.into(),
        ..ListTurnsRequest::default()
    };
    let page = world.runtime.list_turns(&world.cx, list(2, "")).await.unwrap();
    assert_eq!(page.turns.iter().map(|turn| &turn.id).collect::<Vec<_>>(), [&first.id, &second.id]);
    let page = world.runtime.list_turns(&world.cx, list(2, &page.next_page_token)).await.unwrap();
    assert_eq!((page.turns[0].id.as_str(), page.next_page_token.as_str()), (branch.id.as_str(), ""));
}

#[tokio::test]
async fn history_survives_a_restart() {
    let world = World::new(vec![vec![Text("one")]]).await;
    let session = world.session().await;
    world.run(say_in(&session, "1")).await;
    let World { dir, script, hands, store, .. } = world;
    store.close().await;
    let world = World::at(dir, script, hands).await;
    world.run(say_in(&session, "2")).await;
    let texts: Vec<String> = world.script.request(1).messages.iter().map(Message::joined_text).collect();
    assert_eq!(texts, ["1", "one", "2"]);
}

#[tokio::test]
async fn a_session_runs_one_turn_at_a_time_unless_it_branches() {
    let world = World::new(vec![vec![Text("one")], vec![Hang], vec![Text("three")]]).await;
    let session = world.session().await;
    let (_, first) = world.run(say_in(&session, "1")).await;
    let busy = world.begin(say_in(&session, "2")).await.unwrap();
    until(|| world.script.asked() == 2).await;
    let error = world.begin(say_in(&session, "3")).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_in_progress")));
    let (_, branch) = world.run(CreateTurnRequest { parent_turn_id: first.id, ..say("3") }).await;
    assert_eq!(said(&branch), "three");
    drop(busy);
}

/// The end of a turn and the beginning of the next: nobody waits in between.
#[tokio::test]
async fn the_next_turn_can_begin_as_soon_as_the_end_is_told() {
    let world = World::new(vec![]).await;
    let session = world.session().await;
    for n in 0..50 {
        world.run(say_in(&session, &n.to_string())).await;
    }
    assert_eq!(world.script.request(49).messages.len(), 99);
}

#[tokio::test]
async fn another_tenant_finds_nothing() {
    let world = World::new(vec![vec![Call("a", "ask", "{}")]]).await;
    let session = world.session().await;
    let (_, turn) = world.run(say_in(&session, "1")).await;
    let other = Context::test("umbrella");
    let codes = [
        world.runtime.get_turn(&other, GetTurnRequest { id: turn.id.clone() }).await.err().unwrap().code(),
        world.runtime.get_session(&other, GetSessionRequest { id: session.id.clone() }).await.err().unwrap().code(),
        world.runtime.create_turn(&other, say_in(&session, "2")).await.err().unwrap().code(),
        world.runtime.create_turn(&other, CreateTurnRequest { parent_turn_id: turn.id.clone(), ..say("2") }).await.err().unwrap().code(),
        world.runtime.watch_turn(&other, WatchTurnRequest { turn_id: turn.id.clone(), after_sequence: 0 }).await.err().unwrap().code(),
        world.runtime.cancel_turn(&other, llama_stack_proto::v1::CancelTurnRequest { id: turn.id.clone() }).await.err().unwrap().code(),
        world.runtime.delete_turn(&other, DeleteTurnRequest { id: turn.id.clone() }).await.err().unwrap().code(),
        world.runtime.delete_session(&other, DeleteSessionRequest { id: session.id.clone() }).await.err().unwrap().code(),
    ];
    assert_eq!(codes, [Code::NotFound; 8]);
    assert_eq!(world.turn(&turn.id).await.status(), TurnStatus::AwaitingTools);
}

#[tokio::test]
async fn a_turn_that_is_not_to_be_stored_leaves_nothing() {
    let world = World::new(vec![vec![Text("one")]]).await;
    let request = CreateTurnRequest { store: Some(false), ..say("1") };
    let events = rest(world.begin(request).await.unwrap()).await;
    assert_eq!(names(&events), ["created", "started", "completed", "ended"]);
    let id = &events[0].turn_id;
    assert_eq!(world.runtime.get_turn(&world.cx, GetTurnRequest { id: id.clone() }).await.unwrap_err().code(), Code::NotFound);
    assert!(world.store.list_sessions("acme", "tester", None, 0, "").await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_deleted_turn_is_gone_and_its_children_live_on() {
    let world = World::new(vec![vec![Call("a", "ask", "{}")], vec![Text("two")], vec![Text("three")]]).await;
    let (_, first) = world.run(say("1")).await;
    let result = llama_stack_proto::v1::ToolResult { call_id: "a".into(), ..Default::default() };
    let input = vec![Message::tool(vec![result]), Message::user("2")];
    let (_, second) = world.run(CreateTurnRequest { parent_turn_id: first.id.clone(), input, ..say("") }).await;
    world.runtime.delete_turn(&world.cx, DeleteTurnRequest { id: first.id.clone() }).await.unwrap();
    assert_eq!(world.runtime.get_turn(&world.cx, GetTurnRequest { id: first.id }).await.unwrap_err().code(), Code::NotFound);
    world.run(CreateTurnRequest { parent_turn_id: second.id, ..say("3") }).await;
    let texts: Vec<String> = world.script.request(2).messages.iter().map(Message::joined_text).collect();
    assert_eq!(texts, ["2", "two", "3"], "no result without its call");
}

#[tokio::test]
async fn a_repetition_under_a_key_watches_the_first_turn() {
    let world = World::new(vec![vec![Call("a", "ask", "{}")]]).await;
    let session = world.session().await;
    let cx = world.cx.clone().with_idempotency_key("k1");
    let both = futures::future::join_all((0..8).map(|_| world.runtime.create_turn(&cx, say_in(&session, "1")))).await;
    let mut ids = Vec::new();
    for stream in both {
        let events = rest(stream.unwrap()).await;
        assert_eq!(names(&events).last(), Some(&"awaiting"));
        ids.push(events[0].turn_id.clone());
    }
    ids.dedup();
    assert_eq!((ids.len(), world.script.asked()), (1, 1));
    let error = world.runtime.create_turn(&cx, say_in(&session, "2")).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::Aborted, Some("idempotency_key_reused")));
}

/// Neither shown the other's answer, nor told that the key was used.
#[tokio::test]
async fn one_key_of_two_people_begins_two_turns() {
    let world = World::new(vec![vec![Text("for ann")], vec![Text("for bob")]]).await;
    let of = |id: &str| {
        let person = Principal { id: id.into(), tenant: world.cx.tenant().into(), roles: Vec::new() };
        Context::new(person).with_idempotency_key("k1")
    };
    let mut turns = Vec::new();
    for person in ["ann", "bob", "ann"] {
        let events = rest(world.runtime.create_turn(&of(person), say("1")).await.unwrap()).await;
        turns.push(events[0].turn_id.clone());
    }
    assert_ne!(turns[0], turns[1]);
    assert_eq!((&turns[2], world.script.asked()), (&turns[0], 2), "a repetition is still one");
}

#[tokio::test]
async fn crooked_requests_name_the_field() {
    let world = World::new(vec![]).await;
    let session = world.session().await;
    let cases = [
        (CreateTurnRequest { config: None, ..say("1") }, "agent_id"),
        (CreateTurnRequest { input: vec![], ..say("1") }, "input"),
        (CreateTurnRequest { input: vec![Message::default()], ..say("1") }, "input[0].role"),
        (CreateTurnRequest { session_id: "no".into(), ..say("1") }, "session_id"),
        (CreateTurnRequest { parent_turn_id: "no".into(), ..say("1") }, "parent_turn_id"),
        (CreateTurnRequest { agent_id: "no".into(), config: None, ..say("1") }, "agent_id"),
    ];
    for (request, field) in cases {
        assert_eq!(world.begin(request).await.err().unwrap().field(), Some(field));
    }
    let mut request = say_in(&session, "1");
    request.config.as_mut().unwrap().model = "gpt-9".into();
    let error = world.begin(request).await.err().unwrap();
    assert!(error.code() == Code::NotFound && error.message().contains("scripted"), "{error}");
    assert!(world.store.newest_turn_id("acme", &session.id).await.unwrap().is_none(), "nothing was begun");
    world.run(say_in(&session, "and the session is free")).await;
}
