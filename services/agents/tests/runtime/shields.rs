use llama_stack_core::Code;
use llama_stack_proto::v1::{AgentConfig, Message, ShieldStage, TurnStatus, turn_event::Event};

use crate::{
    doubles::Say::{Call, Text},
    world::{World, config, names, refusal, say, say_in},
};

fn guarded(input: &[&str], output: &[&str]) -> Option<AgentConfig> {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    Some(AgentConfig { input_shields: ids(input), output_shields: ids(output), ..config() })
}

#[tokio::test]
async fn a_forbidden_input_never_reaches_the_model() {
    let world = World::new(vec![]).await;
    let mut request = say("fine");
    request.config = guarded(&["words"], &[]);
    request.input.insert(0, Message::user("something bad"));
    let (events, turn) = world.run(request).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "content_filter"));
    assert_eq!((refusal(&turn).as_deref(), world.script.asked()), (Some("Not that."), 0));
    assert_eq!(names(&events), ["created", "started", "started", "completed", "completed", "started", "completed", "ended"]);
}

#[tokio::test]
async fn a_shield_that_cannot_judge_lets_nothing_pass() {
    let world = World::new(vec![vec![Text("fine")]]).await;
    for (input, output) in [(["broken"].as_slice(), [].as_slice()), (&[], &["broken"])] {
        let mut request = say("fine");
        request.config = guarded(input, output);
        let (events, turn) = world.run(request).await;
        assert_eq!(turn.incomplete_reason, "content_filter");
        assert!(refusal(&turn).is_some());
        assert!(!format!("{events:?}").contains("out of order"));
    }
}

#[tokio::test]
async fn a_forbidden_answer_is_seen_by_nobody() {
    let world = World::new(vec![vec![Text("this is bad "), Text("news")], vec![Text("good news")]]).await;
    let session = world.session().await;
    let mut request = say_in(&session, "go");
    request.config = guarded(&["words"], &["words"]);
    let (events, turn) = world.run(request.clone()).await;
    assert_eq!((turn.incomplete_reason.as_str(), refusal(&turn).as_deref()), ("content_filter", Some("Not that.")));
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    assert!(!format!("{events:?}{journal:?}").contains("news"), "neither watchers nor the journal have it");
    let stages: Vec<ShieldStage> = world.guards.judged.lock().unwrap().iter().map(|judged| judged.stage()).collect();
    assert_eq!(stages, [ShieldStage::Input, ShieldStage::Output]);

    let (events, turn) = world.run(request).await;
    assert_eq!(turn.status(), TurnStatus::Completed);
    let deltas = events.iter().filter(|event| matches!(event.event, Some(Event::Delta(_)))).count();
    assert!(deltas > 0, "what passes is shown, a little later");
    assert!(events.iter().map(|event| event.sequence).is_sorted(), "and never before the event whose number it has");
}

#[tokio::test]
async fn without_safety_or_the_shield_a_turn_is_refused() {
    let world = World::new(vec![]).await;
    let mut request = say("go");
    request.config = guarded(&["nobody"], &[]);
    let error = world.begin(request.clone()).await.err().unwrap();
    assert_eq!((error.code(), error.field()), (Code::NotFound, Some("config.input_shields[0]")));

    let parts = llama_stack_agents::RuntimeParts {
        store: world.store.clone(),
        inference: world.script.clone(),
        tools: Some(world.hands.clone()),
        safety: None,
        memory: None,
        connect: None,
        policy: None,
        config: llama_stack_core::manifest::Agents::default(),
        shielding: llama_stack_core::manifest::Safety::default(),
        tasks: tokio_util::task::TaskTracker::new(),
        shutdown: world.shutdown.clone(),
    };
    let runtime = llama_stack_agents::Runtime::new(parts).unwrap();
    let error = llama_stack_core::Agents::create_turn(&*runtime, &world.cx, request).await.err().unwrap();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("nobody"));
}

#[tokio::test]
async fn calls_pass_the_output_shields_without_being_words() {
    let world = World::new(vec![vec![Call("c", "add", r#"{"a":1,"b":1}"#)], vec![Text("two")]]).await;
    let mut request = say("go");
    request.config = guarded(&[], &["words"]);
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.status(), world.guards.judged.lock().unwrap().len()), (TurnStatus::Completed, 1));
}
