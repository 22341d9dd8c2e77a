//! Answers while output shields judge them: held, by windows, or shown at once and judged after.

use std::sync::Arc;

use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, InferenceStep, OutputModeration, ShieldStage, Turn, TurnStatus, output_moderation::Mode, part::Content,
    step::Step,
};

use crate::{
    crash::{die, finished, reborn},
    doubles::{
        Hands,
        Say::{Call, Text},
        Script,
    },
    world::{World, config, refusal, said, say, say_in, streamed, until, verdicts},
};

fn moderated(mode: Mode, window_tokens: u32, shields: &[&str]) -> CreateTurnRequest {
    let moderation = OutputModeration { mode: mode.into(), window_tokens };
    let output_shields = shields.iter().map(|id| (*id).to_owned()).collect();
    CreateTurnRequest { config: Some(AgentConfig { output_shields, output_moderation: Some(moderation), ..config() }), ..say("go") }
}

fn inferences(turn: &Turn) -> Vec<InferenceStep> {
    let inference = |step: &llama_stack_proto::v1::Step| match &step.step {
        Some(Step::Inference(inference)) => Some(inference.clone()),
        _ => None,
    };
    turn.steps.iter().filter_map(inference).collect()
}

/// Sixty words of six letters.
fn long() -> &'static str {
    let words: Vec<String> = (0..60).map(|n| format!("word{n:02}")).collect();
    Box::leak(words.join(" ").into_boxed_str())
}

#[tokio::test]
async fn what_passes_comes_in_windows_and_whole() {
    let world = World::new(vec![vec![Text(long())]]).await;
    let (events, turn) = world.run(moderated(Mode::Windowed, 16, &["words"])).await;
    assert_eq!((turn.status(), said(&turn).as_str(), streamed(&events).as_str()), (TurnStatus::Completed, long(), long()));
    let texts = world.guards.texts("words");
    // A window is sixteen tokens of four bytes, and judged with as much of what was before: never the whole again.
    assert!(texts.len() > 5 && texts.iter().all(|text| text.len() <= 2 * 64 + 7), "{texts:?}");
    let judged: usize = texts.iter().map(String::len).sum();
    assert!(judged <= 2 * long().len(), "{judged} bytes judged of {}", long().len());
    let [verdict]: [_; 1] = verdicts(&turn).try_into().unwrap();
    assert_eq!((verdict.stage(), verdict.error, verdict.judged_sha256.len()), (ShieldStage::Output, None, 64));
    // Read back, it comes as it came.
    assert_eq!(inferences(&turn)[0].pieces.len(), 60);
}

#[tokio::test]
async fn a_window_that_does_not_pass_ends_the_answer_and_is_seen_by_nobody() {
    let text = Box::leak(format!("{} bad things and more", long()).into_boxed_str());
    let world = World::new(vec![vec![Text(text), Call("a", "add", r#"{"a":1,"b":1}"#)]]).await;
    let (events, turn) = world.run(moderated(Mode::Windowed, 4, &["words"])).await;
    assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "content_filter"));
    assert_eq!(refusal(&turn).as_deref(), Some("Not that."));
    let message = inferences(&turn)[0].message.clone().unwrap();
    let [words, _] = message.parts.as_slice() else { panic!("{message:?}") };
    let shown = words.as_text().unwrap();
    assert!(shown.len() > 300 && long().starts_with(shown.trim_end()), "what passed before stays: {shown:?}");
    assert_eq!(streamed(&events), format!("{shown}Not that."));
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    let traces = format!("{events:?}{journal:?}{turn:?}");
    assert!(!traces.contains("bad") && !traces.contains("things"));
    assert_eq!(world.hands.calls(), 0);
    assert!(verdicts(&turn)[0].verdict.as_ref().unwrap().violation.is_some());
    assert!(turn.usage.unwrap().completion_tokens > 50, "what was generated is counted");
}

#[tokio::test]
async fn what_lies_across_two_windows_is_found() {
    // One word is a window: `left` has been shown when `right` comes.
    let world = World::new(vec![vec![Text("now left right now")]]).await;
    let (events, turn) = world.run(moderated(Mode::Windowed, 1, &["pair"])).await;
    assert_eq!((turn.incomplete_reason.as_str(), streamed(&events).as_str()), ("content_filter", "now left Not that."));
}

#[tokio::test]
async fn a_window_is_redacted_before_it_is_shown() {
    let world = World::new(vec![vec![Text("this is my secret and that is all")]]).await;
    let (events, turn) = world.run(moderated(Mode::Windowed, 3, &["mask", "words"])).await;
    assert_eq!((said(&turn).as_str(), streamed(&events).as_str()), ("this is my [1] and that is all", "this is my [1] and that is all"));
    assert_eq!(turn.status(), TurnStatus::Completed);
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    assert!(!format!("{journal:?}{events:?}").contains("secret"));
}

#[tokio::test]
async fn calls_wait_for_the_verdict_on_the_words_in_every_mode() {
    for mode in [Mode::Held, Mode::Windowed, Mode::After] {
        let world =
            World::new(vec![vec![Text("a bad plan"), Call("a", "add", r#"{"a":1,"b":1}"#), Call("b", "ask", r#"{"q":"x"}"#)]]).await;
        let (events, turn) = world.run(moderated(mode, 64, &["words"])).await;
        assert_eq!((turn.incomplete_reason.as_str(), world.hands.calls()), ("content_filter", 0), "{mode:?}");
        assert!(!streamed(&events).contains("\"a\":1"), "{mode:?}");
        let world = World::new(vec![vec![Text("a good plan"), Call("a", "add", r#"{"a":1,"b":1}"#)], vec![Text("two")]]).await;
        let (events, turn) = world.run(moderated(mode, 64, &["words"])).await;
        assert_eq!((turn.status(), said(&turn).as_str(), world.hands.calls()), (TurnStatus::Completed, "two", 1), "{mode:?}");
        assert_eq!(streamed(&events), "a good plan{\"a\":1,\"b\":1}two", "{mode:?}");
    }
}

#[tokio::test]
async fn what_is_judged_after_is_shown_at_once_and_taken_back() {
    let world = World::new(vec![vec![Text("bad news")]]).await;
    let session = world.session().await;
    let request = CreateTurnRequest { session_id: session.id.clone(), ..moderated(Mode::After, 0, &["words"]) };
    let (events, turn) = world.run(request).await;
    assert!(streamed(&events).starts_with("bad news"));
    assert_eq!((turn.incomplete_reason.as_str(), refusal(&turn).as_deref()), ("content_filter", Some("Not that.")));
    assert!(inferences(&turn)[0].cut_off && inferences(&turn)[0].message.is_none(), "its words are no part of the turn");
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    assert!(!format!("{journal:?}{turn:?}").contains("bad"));
    world.run(say_in(&session, "and now?")).await;
    assert_eq!(world.script.asked(), 2, "the model is not asked for the same again");
    assert!(!format!("{:?}", world.script.request(1)).contains("bad"));
}

#[tokio::test]
async fn what_is_redacted_after_is_kept_in_its_new_form() {
    let world = World::new(vec![vec![Text("my secret"), Call("a", "add", r#"{"a":1,"b":1}"#)], vec![Text("two")]]).await;
    let (_, turn) = world.run(moderated(Mode::After, 0, &["mask"])).await;
    let texts: Vec<String> = inferences(&turn).iter().map(|step| step.message.clone().unwrap_or_default().joined_text()).collect();
    assert_eq!((turn.status(), texts, world.hands.calls()), (TurnStatus::Completed, vec![String::new(), "my [1]".into(), "two".into()], 1));
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    assert!(!format!("{journal:?}").contains("secret"));
}

#[tokio::test]
async fn a_held_answer_is_shown_as_it_was_redacted() {
    let world = World::new(vec![vec![Text("my secret and hidden things")]]).await;
    let (events, turn) = world.run(moderated(Mode::Held, 0, &["mask", "veil"])).await;
    assert_eq!((said(&turn).as_str(), streamed(&events).as_str()), ("my [2] and [2] things", "my [2] and [2] things"));
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    assert!(!format!("{journal:?}{events:?}").contains("secret"));
}

#[tokio::test]
async fn a_window_has_its_bounds() {
    let world = World::new(vec![]).await;
    let error = world.begin(moderated(Mode::Windowed, 1_025, &["words"])).await.err().unwrap();
    assert_eq!(error.field(), Some("config.output_moderation.window_tokens"));
}

/// A process that dies while a window is judged leaves nothing of it, and the answer that comes then is judged anew.
#[test]
fn nothing_unjudged_survives_a_crash() {
    for mode in [Mode::Held, Mode::Windowed] {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (script, hands) = (Script::of(vec![vec![Text("some unjudged words")]]), Arc::<Hands>::default());
        let id = die(&dir, &script, &hands, moderated(mode, 2, &["hang"]), || script.asked() == 1);
        script.then(vec![Text("other words")]);
        reborn(dir, script.clone(), hands, async |world: World| {
            let before = world.store.journal("acme", &id, 0).await.unwrap();
            assert!(!format!("{before:?}").contains("unjudged"), "{mode:?}");
            world.runtime.recover().await.unwrap();
            // It hangs again, on other words; and still nobody has seen any.
            until(|| world.guards.texts("hang").iter().any(|text| text.contains("other"))).await;
            let cancel = llama_stack_proto::v1::CancelTurnRequest { id: id.clone() };
            llama_stack_core::Agents::cancel_turn(&*world.runtime, &world.cx, cancel).await.unwrap();
            let turn = finished(&world, &id).await;
            assert_eq!(turn.status(), TurnStatus::Cancelled);
            let journal = world.store.journal("acme", &id, 0).await.unwrap();
            assert!(!format!("{journal:?}").contains("words"), "{mode:?}");
            assert!(turn.steps.iter().all(|step| !matches!(&step.step, Some(Step::Inference(said)) if said.message.as_ref().is_some_and(|message| message.parts.iter().any(|part| matches!(part.content, Some(Content::Text(_))))))));
        });
    }
}
