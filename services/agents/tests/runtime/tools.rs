use std::sync::atomic::{AtomicUsize, Ordering};

use llama_stack_proto::v1::{Role, ToolChoice, TurnStatus, part::Content, step::Step, tool_choice::Mode};

use crate::{
    doubles::Say::{Call, OnlyWithoutTools, Text},
    world::{World, config, names, rest, said, say, tool_results},
};

#[tokio::test]
async fn a_turn_goes_on_until_the_model_answers() {
    let world = World::new(vec![vec![Call("c1", "add", r#"{"a":2,"b":3}"#)], vec![Text("five it is")]]).await;
    let (events, turn) = world.run(say("2 + 3?")).await;
    assert_eq!(names(&events), ["created", "started", "completed", "started", "completed", "started", "completed", "ended"]);
    let journalled: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert!(journalled.is_sorted() && journalled.last() == Some(&8), "{journalled:?}");
    assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "five it is"));
    assert_eq!(tool_results(&turn)[0].joined_text(), "5");
    assert_eq!(turn.usage.unwrap().completion_tokens, 10);
    let asked = world.script.request(1);
    let roles: Vec<Role> = asked.messages.iter().map(|message| message.role()).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
}

#[tokio::test]
async fn calls_run_at_once_and_their_results_come_in_call_order() {
    // The first waits longest: were they run one after another, or told as they come, this would show.
    let calls = vec![Call("c1", "sleep", r#"{"ms":300}"#), Call("c2", "sleep", r#"{"ms":150}"#), Call("c3", "add", r#"{"a":1,"b":1}"#)];
    let world = World::new(vec![calls]).await;
    let running = AtomicUsize::new(0);
    let stream = world.begin(say("go")).await.unwrap();
    let events = rest(stream).await;
    let mut most = 0;
    for event in &events {
        match &event.event {
            Some(llama_stack_proto::v1::turn_event::Event::StepStarted(step)) if matches!(step.step, Some(Step::Tool(_))) => {
                most = most.max(running.fetch_add(1, Ordering::SeqCst) + 1);
            }
            Some(llama_stack_proto::v1::turn_event::Event::StepCompleted(step)) if matches!(step.step, Some(Step::Tool(_))) => {
                running.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
    assert_eq!(most, 3, "all three were under way together");
    let told: Vec<String> = world.script.request(1).messages[2].tool_results().map(|result| result.joined_text()).collect();
    assert_eq!(told, ["slept 300", "slept 150", "2"]);
}

#[tokio::test]
async fn what_the_model_gets_wrong_goes_back_to_it() {
    let wrong = vec![
        Call("c1", "fly", "{}"),
        Call("c2", "add", "{\"a\":"),
        Call("c3", "add", r#"{"a":"one","b":2}"#),
        Call("c4", "sulk", "{}"),
        Call("c5", "away", "{}"),
        Call("c6", "ask", "[]"),
    ];
    let world = World::new(vec![wrong, vec![Text("sorry")]]).await;
    let (_, turn) = world.run(say("go")).await;
    assert_eq!(turn.status(), TurnStatus::Completed);
    let results = tool_results(&turn);
    assert!(results.len() == 6 && results.iter().all(|result| result.is_error));
    for (result, told) in results.iter().zip(["no tool \"fly\"", "not valid JSON", "/a", "no", "nobody there", "one JSON object"]) {
        assert!(result.joined_text().contains(told), "{} should say {told}", result.joined_text());
        assert!(!result.joined_text().contains("secret"));
    }
    assert_eq!(world.hands.calls(), 2, "only what can run has run");
}

#[tokio::test]
async fn a_repeated_call_is_answered_from_its_result_and_tools_are_withheld() {
    let world = World::new(vec![
        vec![Call("c1", "add", r#"{"a":2,"b":3}"#)],
        vec![Call("c1", "add", r#"{ "b":3, "a":2 }"#)],
        vec![OnlyWithoutTools("it is 5")],
    ])
    .await;
    let (_, turn) = world.run(say("2 + 3?")).await;
    assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "it is 5"));
    assert_eq!(world.hands.calls(), 1);
    let results = tool_results(&turn);
    assert_eq!(results[1].joined_text(), "5");
    assert_ne!(results[0].call_id, results[1].call_id, "an id that is taken is replaced");
    let withheld = turn.steps.iter().filter(|step| matches!(&step.step, Some(Step::Inference(step)) if step.tools_withheld));
    assert_eq!(withheld.count(), 1);
}

#[tokio::test]
async fn a_forced_call_is_forced_once() {
    let world = World::new(vec![vec![Call("c1", "add", r#"{"a":2,"b":3}"#)]]).await;
    let mut request = say("go");
    request.config.as_mut().unwrap().tool_choice = Some(ToolChoice { mode: Mode::Required.into(), ..ToolChoice::default() });
    world.run(request).await;
    let mode = |index| world.script.request(index).tool_choice.unwrap().mode();
    assert_eq!((mode(0), mode(1)), (Mode::Required, Mode::Auto));
}

#[tokio::test]
async fn labels_say_where_words_come_from() {
    let world = World::new(vec![vec![Text("well "), Call("c1", "liar", "{}")]]).await;
    let mut request = say("go");
    request.config = Some(llama_stack_proto::v1::AgentConfig { instructions: "be kind".into(), ..config() });
    world.run(request).await;
    let asked = world.script.request(1).messages;
    let labels: Vec<String> = asked.iter().map(|message| message.parts[0].provenance.clone()).collect();
    assert_eq!(labels[..3], ["system", "user", "assistant"]);
    let Some(Content::ToolResult(result)) = &asked[3].parts[0].content else { panic!("no result") };
    let labels: Vec<&str> = result.parts.iter().map(|part| part.provenance.as_str()).collect();
    assert_eq!(labels, ["tool:liar", "retrieved:bank/doc"], "a tool cannot speak as the system");
}

#[tokio::test]
async fn a_models_failure_ends_the_turn_and_shows_no_cause() {
    let world = World::new(vec![vec![Text("I "), crate::doubles::Say::Fail]]).await;
    let (events, turn) = world.run(say("go")).await;
    assert_eq!(turn.status(), TurnStatus::Failed);
    let error = turn.error.unwrap();
    assert_eq!((error.code.as_str(), error.reason.as_str()), ("UNAVAILABLE", "model_away"));
    assert!(!format!("{events:?}").contains("secret"));
}
