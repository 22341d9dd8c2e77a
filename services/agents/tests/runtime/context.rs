//! Histories that grow: only ever appended to, cut where a model has no room, summarised above a threshold.

use std::sync::atomic::Ordering;

use llama_stack_core::Agents as _;
use llama_stack_proto::v1::{
    AgentConfig, CompactRequest, CompactionStep, CreateTurnRequest, HistoryTruncation, InferenceStep, Message, Part, PartPlace,
    RedactTurnRequest, ResumeTurnRequest, Role, Session, ToolResult, Turn, TurnStatus, part_place::Place, step::Step,
};
use proptest::prelude::*;

use crate::{
    doubles::Say::{Call, Text},
    world::{World, rest, said, say_in},
};

fn inference(turn: &Turn) -> InferenceStep {
    let steps = turn.steps.iter().rev();
    steps
        .filter_map(|step| match &step.step {
            Some(Step::Inference(inference)) => Some(inference.clone()),
            _ => None,
        })
        .next()
        .unwrap()
}

fn compaction(turn: &Turn) -> Option<CompactionStep> {
    turn.steps.iter().find_map(|step| match &step.step {
        Some(Step::Compaction(step)) => Some(step.clone()),
        _ => None,
    })
}

async fn turn(world: &World, session: &Session, text: &str, change: impl FnOnce(&mut AgentConfig)) -> Turn {
    let mut request = say_in(session, text);
    change(request.config.as_mut().unwrap());
    world.run(request).await.1
}

#[tokio::test]
async fn what_a_model_has_read_is_the_beginning_of_what_it_reads_next() {
    let call = |id| vec![Call(id, "add", r#"{"a":1,"b":1}"#)];
    let answers = (0..6).flat_map(|n| [call(["a", "b", "c", "d", "e", "f"][n]), vec![Text("It is two.")]]).collect();
    let world = World::new(answers).await;
    let session = world.session().await;
    for n in 0..6 {
        turn(&world, &session, &format!("question {n}"), |_| ()).await;
    }
    let requests = world.script.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 12);
    for pair in requests.windows(2) {
        assert!(pair[1].messages.starts_with(&pair[0].messages), "a history was rewritten");
        assert_eq!(pair[0].tools, pair[1].tools);
    }
}

/// Something that makes a history longer.
#[derive(Clone, Debug)]
enum Grows {
    Talk,
    /// So many calls at once.
    Calls(usize),
    /// A call of the client's, whose result comes with the next turn or resumes this one.
    Client(bool),
    /// Words that no model is asked about.
    Append,
    /// Another process goes on.
    Restart,
}

fn growing() -> impl Strategy<Value = Vec<Grows>> {
    let one = prop_oneof![
        2 => Just(Grows::Talk),
        3 => (1_usize..4).prop_map(Grows::Calls),
        2 => any::<bool>().prop_map(Grows::Client),
        1 => Just(Grows::Append),
        2 => Just(Grows::Restart),
    ];
    prop::collection::vec(one, 2..9)
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

async fn grow(mut world: World, moves: Vec<Grows>) -> World {
    let session = world.session().await;
    for (n, one) in moves.into_iter().enumerate() {
        let question = format!("question {n}");
        match one {
            Grows::Talk => drop(turn(&world, &session, &question, |_| ()).await),
            Grows::Calls(count) => {
                let call = |k: usize| Call(leak(format!("call{n}_{k}")), "repeat", leak(format!(r#"{{"text":"{n} {k}"}}"#)));
                world.script.then((0..count).map(call).collect());
                drop(turn(&world, &session, &question, |_| ()).await);
            }
            Grows::Client(resumes) => {
                let id = leak(format!("call{n}"));
                world.script.then(vec![Call(id, "ask", r#"{"q":"?"}"#)]);
                let waiting = turn(&world, &session, &question, |_| ()).await;
                let result = ToolResult { call_id: id.into(), parts: vec![Part::text("yes")], ..ToolResult::default() };
                if resumes {
                    let resume = ResumeTurnRequest { turn_id: waiting.id, results: vec![result], ..ResumeTurnRequest::default() };
                    rest(world.runtime.resume_turn(&world.cx, resume).await.unwrap()).await;
                } else {
                    world.run(CreateTurnRequest { input: vec![Message::tool(vec![result])], ..say_in(&session, "") }).await;
                }
            }
            Grows::Append => {
                let request = CreateTurnRequest { config: None, append_only: true, ..say_in(&session, &question) };
                world.run(request).await;
            }
            Grows::Restart => {
                let World { dir, script, hands, store, .. } = world;
                store.close().await;
                world = World::at(dir, script, hands).await;
            }
        }
    }
    turn(&world, &session, "and at last", |_| ()).await;
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn histories_of_all_kinds_are_only_appended_to(moves in growing()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = runtime.block_on(async { grow(World::new(vec![]).await, moves).await });
        let requests = world.script.requests.lock().unwrap().clone();
        for pair in requests.windows(2) {
            prop_assert!(pair[1].messages.starts_with(&pair[0].messages), "a history was rewritten: {:?}", pair);
            prop_assert_eq!(&pair[0].tools, &pair[1].tools);
        }
    }
}

#[tokio::test]
async fn a_history_that_does_not_fit_is_cut_at_its_beginning_and_the_step_says_so() {
    let world = World::new(vec![]).await;
    world.script.context.store(2_000, Ordering::Relaxed);
    let session = world.session().await;
    let long = "many words ".repeat(60);
    let mut cut = 0;
    for n in 0..12 {
        let turn = turn(&world, &session, &format!("{n} {long}"), |config| config.set_truncation(HistoryTruncation::Auto)).await;
        cut = inference(&turn).messages_left_out;
        let read = world.script.request(n).messages;
        assert_eq!((turn.status(), read.last().unwrap().joined_text().starts_with(&n.to_string())), (TurnStatus::Completed, true));
        assert_eq!((read.len() + cut as usize, read[0].role()), (2 * n + 1, Role::User));
    }
    assert!(cut >= 10, "{cut}");
    // Unless it is asked for, nothing is left out.
    let whole = turn(&world, &session, "and now", |_| ()).await;
    assert_eq!((inference(&whole).messages_left_out, world.script.request(12).messages.len()), (0, 25));
}

#[tokio::test]
async fn a_long_history_becomes_a_summary_that_later_turns_read_in_its_place() {
    let world =
        World::new(vec![vec![Call("a", "liar", "{}")], vec![Text("noted")], vec![Text("They spoke of numbers.")], vec![Text("fine")]])
            .await;
    let session = world.session().await;
    let long = "many words ".repeat(200);
    turn(&world, &session, &long, |_| ()).await;
    let second = turn(&world, &session, "go on", |config| config.compact_threshold = 200).await;
    let made = compaction(&second).expect("no summary was made");
    assert_eq!((made.summary.as_str(), said(&second).as_str()), ("They spoke of numbers.", "fine"));
    assert!(made.tokens_before > 200 && made.tokens_after < made.tokens_before, "{made:?}");
    assert!(made.provenance.contains(&"retrieved:bank/doc".to_owned()), "{:?}", made.provenance);
    let read = world.script.request(3).messages;
    assert_eq!((read.len(), read[0].role(), read[1].joined_text().as_str()), (2, Role::User, "go on"));
    // What came from outside keeps its label: a summary does not launder it.
    assert!(read[0].joined_text().contains("They spoke of numbers.") && read[0].parts[0].provenance != "user");
    assert!(second.usage.unwrap().prompt_tokens >= 20, "the summary's own tokens are counted");
    turn(&world, &session, "and then?", |config| config.compact_threshold = 200).await;
    let read = world.script.request(4).messages;
    assert_eq!(read.iter().map(Message::joined_text).collect::<Vec<_>>()[1..], ["go on", "fine", "and then?"]);
}

#[tokio::test]
async fn a_caller_can_have_a_history_summarised() {
    let world = World::new(vec![vec![Text("hello")], vec![Text("A greeting.")]]).await;
    let session = world.session().await;
    let turn = turn(&world, &session, "hi", |_| ()).await;
    let request = CompactRequest { model: "scripted".into(), turn_id: turn.id, ..CompactRequest::default() };
    let made = world.runtime.compact(&world.cx, request).await.unwrap().compaction.unwrap();
    assert_eq!(made.summary, "A greeting.");
    assert!(world.script.request(1).messages[1].joined_text().contains("[user] hi\n[assistant] hello"));
}

#[tokio::test]
async fn items_can_be_added_without_a_model_and_taken_out_again() {
    let world = World::new(vec![]).await;
    let session = world.session().await;
    let input = vec![Message::user("my secret is 7"), Message::assistant("noted"), Message::user("and 8")];
    let request = CreateTurnRequest { session_id: session.id.clone(), input, append_only: true, ..CreateTurnRequest::default() };
    let (_, added) = world.run(request).await;
    assert_eq!((added.status(), world.script.asked()), (TurnStatus::Completed, 0));
    let parts = vec![PartPlace { place: Some(Place::Input(0)), part: 0 }];
    let request = RedactTurnRequest { turn_id: added.id.clone(), parts };
    let left = world.runtime.redact_turn(&world.cx, request.clone()).await.unwrap();
    assert_eq!(left, world.turn(&added.id).await);
    turn(&world, &session, "what do you know?", |_| ()).await;
    let read: Vec<String> = world.script.request(0).messages.iter().map(Message::joined_text).collect();
    assert_eq!(read, ["noted", "and 8", "what do you know?"]);
    let journal = world.store.journal("acme", &added.id, 0).await.unwrap();
    assert!(!format!("{journal:?}").contains("secret"), "it is still in the journal");
    let missing = RedactTurnRequest { parts: vec![PartPlace { place: Some(Place::Input(9)), part: 0 }], ..request };
    assert!(world.runtime.redact_turn(&world.cx, missing).await.is_err());
}
