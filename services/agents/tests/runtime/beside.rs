//! Shields that judge an input while the model reads it already.

use std::sync::Arc;

use futures::StreamExt as _;
use llama_stack_core::Agents as _;
use llama_stack_proto::v1::{
    AgentConfig, CancelTurnRequest, CreateTurnRequest, InferenceStep, Turn, TurnEvent, TurnStatus, step::Step, turn_event::Event,
};

use crate::{
    crash::{die_in, finished, reborn_in},
    doubles::{
        Hands,
        Say::{Call, Hang, Text},
        Script,
    },
    world::{World, config, names, refusal, rest, said, say, streamed, until},
};

/// `gate` and `lattice` may judge beside the model.
async fn world(answers: Vec<Vec<crate::doubles::Say>>) -> World {
    World::changed(answers, |parts| parts.shielding.beside_model = vec!["gate".into(), "lattice".into()]).await
}

fn judged(text: &str, shields: &[&str]) -> CreateTurnRequest {
    let input_shields = shields.iter().map(|id| (*id).to_owned()).collect();
    CreateTurnRequest { config: Some(AgentConfig { input_shields, ..config() }), ..say(text) }
}

fn open(world: &World) {
    world.guards.open.send_replace(true);
}

fn inferences(turn: &Turn) -> Vec<InferenceStep> {
    let inference = |step: &llama_stack_proto::v1::Step| match &step.step {
        Some(Step::Inference(inference)) => Some(inference.clone()),
        _ => None,
    };
    turn.steps.iter().filter_map(inference).collect()
}

async fn journal(world: &World, id: &str) -> String {
    format!("{:?}", world.store.journal("acme", id, 0).await.unwrap())
}

/// All that was told of a turn until it fell silent.
async fn told(events: &mut llama_stack_core::EventStream<TurnEvent>) -> Vec<TurnEvent> {
    let mut told = Vec::new();
    for _ in 0..200 {
        tokio::task::yield_now().await;
        while let Some(Some(event)) = futures::FutureExt::now_or_never(events.next()) {
            told.push(event.unwrap());
        }
    }
    told
}

#[tokio::test]
async fn the_model_is_asked_while_a_shield_judges_and_nobody_hears_it_before_the_verdict() {
    let world = world(vec![vec![Text("hello there")]]).await;
    let mut events = world.begin(judged("hi", &["gate"])).await.unwrap();
    until(|| world.script.asked() == 1 && world.guards.texts("gate").len() == 1).await;
    let mut before = told(&mut events).await;
    assert_eq!(names(&before), ["created", "started", "started"], "the intents of both are there");
    assert_eq!(streamed(&before), "");
    assert!(!journal(&world, &before[0].turn_id).await.contains("hello"), "the journal has none of it either");
    open(&world);
    let after = rest(events).await;
    assert_eq!((streamed(&after).as_str(), names(&after)), ("hello there", vec!["completed", "completed", "ended"]));
    assert!(matches!(after[0].event, Some(Event::StepCompleted(_))), "the verdict is told before the first word");
    before.extend(after);
    assert!(before.iter().map(|event| event.sequence).is_sorted());
    let turn = world.turn(&before[0].turn_id).await;
    assert_eq!((turn.status(), said(&turn).as_str(), world.script.asked()), (TurnStatus::Completed, "hello there", 1));
}

#[tokio::test]
async fn no_tool_runs_before_the_verdict() {
    let world = world(vec![vec![Call("c", "add", r#"{"a":1,"b":1}"#)], vec![Text("two")]]).await;
    let mut events = world.begin(judged("add", &["gate"])).await.unwrap();
    until(|| world.script.asked() == 1).await;
    told(&mut events).await;
    assert_eq!(world.hands.calls(), 0);
    open(&world);
    rest(events).await;
    assert_eq!((world.hands.calls(), world.script.asked()), (1, 2));
}

#[tokio::test]
async fn a_refusal_stops_the_model_and_nothing_is_left_of_what_it_said() {
    let world = world(vec![vec![Text("forbidden words"), Hang]]).await;
    let mut events = world.begin(judged("something bad", &["gate"])).await.unwrap();
    until(|| world.script.asked() == 1).await;
    let before = told(&mut events).await;
    assert_eq!(world.script.ended(), 0);
    open(&world);
    let after = rest(events).await;
    assert_eq!(world.script.ended(), 1, "it does not go on in the background");
    let turn = world.turn(&before[0].turn_id).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "content_filter"));
    assert_eq!(refusal(&turn).as_deref(), Some("Not that."));
    let cut: Vec<(bool, bool)> = inferences(&turn).iter().map(|step| (step.cut_off, step.message.is_some())).collect();
    assert_eq!(cut, [(true, false), (false, true)], "the journal tells of both");
    assert_eq!(inferences(&turn)[0].usage.as_ref().unwrap().completion_tokens, 2, "and of what it took");
    assert!(!format!("{before:?}{after:?}{}", journal(&world, &turn.id).await).contains("forbidden"));
}

#[tokio::test]
async fn a_model_that_read_what_is_redacted_is_asked_again() {
    let world = world(vec![vec![Text("of the secret")], vec![Text("of nothing")]]).await;
    let events = world.begin(judged("my secret", &["lattice"])).await.unwrap();
    until(|| world.script.asked() == 1).await;
    open(&world);
    let events = rest(events).await;
    let turn = world.turn(&events[0].turn_id).await;
    assert_eq!((said(&turn).as_str(), streamed(&events).as_str()), ("of nothing", "of nothing"));
    let read = |index: usize| format!("{:?}", world.script.request(index).messages);
    assert!(read(0).contains("my secret") && read(1).contains("my [1]") && !read(1).contains("secret"));
    assert!(!journal(&world, &turn.id).await.contains("secret"));
}

/// What is to be redacted, and what is to keep a text from a model, is not named in `beside_model`.
#[tokio::test]
async fn other_shields_are_done_before_the_model_reads_anything() {
    let world = world(vec![vec![Text("fine")]]).await;
    open(&world);
    let (_, turn) = world.run(judged("my secret", &["gate", "mask"])).await;
    assert_eq!((said(&turn).as_str(), world.script.asked()), ("fine", 1));
    assert!(!format!("{:?}", world.script.request(0).messages).contains("secret"));
    assert_eq!(world.guards.texts("gate"), ["my [1]"], "it judges what the others left");
    world.run(judged("something bad", &["gate", "words"])).await;
    assert_eq!((world.script.asked(), world.guards.texts("gate").len()), (1, 1), "refused before either was asked");
}

/// A shield that cannot judge beside the model lets nothing pass either.
#[tokio::test]
async fn a_shield_that_fails_beside_the_model_refuses() {
    let world = World::changed(vec![vec![Text("unjudged")]], |parts| parts.shielding.beside_model = vec!["broken".into()]).await;
    let (events, turn) = world.run(judged("hi", &["broken"])).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "content_filter"));
    assert!(!format!("{events:?}{}", journal(&world, &turn.id).await).contains("unjudged"));
}

#[tokio::test]
async fn who_cancels_stops_both() {
    let world = world(vec![vec![Text("words"), Hang]]).await;
    let mut events = world.begin(judged("hi", &["gate"])).await.unwrap();
    until(|| world.script.asked() == 1).await;
    let id = told(&mut events).await[0].turn_id.clone();
    world.runtime.cancel_turn(&world.cx, CancelTurnRequest { id: id.clone() }).await.unwrap();
    rest(events).await;
    assert_eq!((world.turn(&id).await.status(), world.script.ended()), (TurnStatus::Cancelled, 1));
    assert!(!journal(&world, &id).await.contains("words"));
}

/// Neither the verdict nor the words outlive the process; both are made anew.
#[test]
fn a_crash_beside_the_model_leaves_nothing_unjudged() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (script, hands) = (Script::of(vec![vec![Text("unjudged words")]]), Arc::<Hands>::default());
    let change = |parts: &mut llama_stack_agents::RuntimeParts| parts.shielding.beside_model = vec!["gate".into()];
    let id = die_in(&dir, &script, &hands, change, judged("hi", &["gate"]), || script.asked() == 1);
    script.then(vec![Text("judged words")]);
    reborn_in(dir, script.clone(), hands, change, async |world: World| {
        assert!(!journal(&world, &id).await.contains("words"));
        open(&world);
        world.runtime.recover().await.unwrap();
        let turn = finished(&world, &id).await;
        assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "judged words"));
        assert!(turn.steps.iter().all(|step| step.ended.is_some()));
    });
}
