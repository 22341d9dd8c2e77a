//! Shields that fail, hang, come late or talk nonsense, at every stage: what they could not judge does not pass, the journal
//! says why, and the turn comes to its end.

use llama_stack_core::manifest::OnFailure;
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, OutputModeration, ShieldStep, Turn, TurnEvent, TurnStatus, output_moderation::Mode, turn_event::Event,
};

use crate::{
    doubles::Say::{Call, Text},
    world::{World, config, refusal, said, say, streamed, tool_results, verdicts},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Input,
    Arguments,
    Result,
    Retrieved,
    Held,
    Windowed,
    After,
}

use Stage::{After, Arguments, Held, Input, Result, Retrieved, Windowed};

const STAGES: [Stage; 7] = [Input, Arguments, Result, Retrieved, Held, Windowed, After];

/// The shield, and what the journal says of it: a code and a stable word.
const FAULTS: [(&str, &str, &str); 8] = [
    ("broken", "INTERNAL", "shield_failed"),
    ("hang", "DEADLINE_EXCEEDED", "shield_timeout"),
    ("late", "DEADLINE_EXCEEDED", "shield_timeout"),
    ("unleveled", "INTERNAL", "unclear_verdict"),
    ("odd", "INTERNAL", "unclear_verdict"),
    ("hollow", "INTERNAL", "unusable_redaction"),
    ("blank", "INTERNAL", "unusable_redaction"),
    ("tick", "INTERNAL", "shields_disagree"),
];

fn request(stage: Stage, shield: &str) -> CreateTurnRequest {
    let mut config: AgentConfig = config();
    let list = match stage {
        Input => &mut config.input_shields,
        Arguments => &mut config.tool_argument_shields,
        Result => &mut config.tool_result_shields,
        Retrieved => &mut config.retrieved_shields,
        Held | Windowed | After => &mut config.output_shields,
    };
    // One that judges as it should stands beside it.
    list.extend([shield.to_owned(), "words".to_owned()]);
    if shield == "tick" {
        list.push("tock".to_owned());
    }
    let mode = match stage {
        Windowed => Mode::Windowed,
        After => Mode::After,
        _ => Mode::Held,
    };
    config.output_moderation = Some(OutputModeration { mode: mode.into(), window_tokens: if stage == Windowed { 2 } else { 0 } });
    CreateTurnRequest { config: Some(config), ..say("a question") }
}

async fn world(stage: Stage, on_failure: OnFailure) -> World {
    let script = match stage {
        Arguments | Result => vec![vec![Call("a", "repeat", r#"{"text":"a w\u006frd"}"#)], vec![Text("an answer")]],
        Retrieved => vec![vec![Call("a", "find", r#"{"text":"a w\u006frd"}"#)], vec![Text("an answer")]],
        Input | Held | Windowed | After => vec![vec![Text("an answer")]],
    };
    let change = |parts: &mut llama_stack_agents::RuntimeParts| {
        parts.shielding.timeout_seconds = 0.05;
        parts.shielding.on_failure = on_failure;
    };
    World::changed(script, change).await
}

fn of<'a>(verdicts: &'a [ShieldStep], shield: &str) -> &'a ShieldStep {
    verdicts.iter().find(|step| step.shield_id == shield).unwrap()
}

/// Nothing of what was to be judged has passed.
fn assert_closed(stage: Stage, world: &World, events: &[TurnEvent], turn: &Turn) {
    match stage {
        Input | Held | Windowed | After => {
            assert_eq!((turn.status(), turn.incomplete_reason.as_str()), (TurnStatus::Incomplete, "content_filter"));
            assert!(refusal(turn).is_some_and(|words| !words.is_empty()));
            assert_eq!(world.script.asked(), usize::from(stage != Input));
            assert_eq!(streamed(events).contains("answer"), stage == After);
        }
        Arguments => {
            assert_eq!((turn.status(), said(turn).as_str(), world.hands.calls()), (TurnStatus::Completed, "an answer", 0));
            assert!(tool_results(turn)[0].is_error);
        }
        Result | Retrieved => {
            assert_eq!((turn.status(), said(turn).as_str(), world.hands.calls()), (TurnStatus::Completed, "an answer", 1));
            let read = format!("{:?}", world.script.request(1));
            assert!(tool_results(turn)[0].is_error && !read.contains("a word"));
        }
    }
}

#[tokio::test]
async fn a_shield_that_cannot_judge_closes_every_stage_and_the_journal_says_why() {
    let cases = STAGES.into_iter().flat_map(|stage| FAULTS.map(|fault| (stage, fault)));
    for (stage, (shield, code, reason)) in cases {
        let world = world(stage, OnFailure::Closed).await;
        let (events, turn) = world.run(request(stage, shield)).await;
        let case = format!("{shield} at {stage:?}: {turn:?}");
        assert!(matches!(events.last().unwrap().event, Some(Event::Ended(_))), "{case}");
        assert_closed(stage, &world, &events, &turn);
        let steps = verdicts(&turn);
        let error = of(&steps, shield).error.clone().expect(&case);
        assert_eq!((error.code.as_str(), error.reason.as_str()), (code, reason), "{case}");
        assert!(!format!("{events:?}").contains("out of order"), "the cause is the log's: {case}");
        assert!(turn.steps.iter().all(|step| step.ended.is_some()), "{case}");
    }
}

#[tokio::test]
async fn where_the_manifest_says_so_what_cannot_be_judged_passes_and_the_journal_says_so() {
    for stage in STAGES {
        for (shield, code) in [("broken", "INTERNAL"), ("hang", "DEADLINE_EXCEEDED")] {
            let world = world(stage, OnFailure::Open).await;
            let (_, turn) = world.run(request(stage, shield)).await;
            assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "an answer"), "{shield} at {stage:?}");
            let steps = verdicts(&turn);
            let step = of(&steps, shield);
            assert_eq!((step.error.as_ref().unwrap().code.as_str(), step.verdict.is_some()), (code, true));
        }
        // What a shield did find is no failure: an unclear verdict does not pass.
        for shield in ["unleveled", "hollow", "tick"] {
            let world = world(stage, OnFailure::Open).await;
            let (events, turn) = world.run(request(stage, shield)).await;
            assert_closed(stage, &world, &events, &turn);
        }
    }
}

#[tokio::test]
async fn a_shield_that_says_nothing_has_nothing_against_it() {
    for stage in STAGES {
        let world = world(stage, OnFailure::Closed).await;
        let (_, turn) = world.run(request(stage, "empty")).await;
        assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "an answer"), "{stage:?}");
        assert_eq!(of(&verdicts(&turn), "empty").error, None);
    }
}
