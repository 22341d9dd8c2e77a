//! Shields at every stage: what they refuse is read by nobody, and what they redact is read by all in its new form.

use std::sync::Arc;

use llama_stack_core::{Agents as _, manifest::DefaultShields};
use llama_stack_proto::v1::{
    AgentConfig, ApprovalDecision, CreateAgentRequest, CreateTurnRequest, Message, Part, ResumeTurnRequest, Role, ShieldStage, ToolResult,
    Turn, TurnEvent, TurnStatus, step::Step, turn_event::Event,
};

use crate::{
    crash::{die, finished, reborn},
    doubles::{
        Hands,
        Say::{Call, Text},
        Script,
    },
    world::{World, config, names, refusal, rest, said, say, say_in, tool_results, verdicts},
};

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn with(change: impl FnOnce(&mut AgentConfig)) -> CreateTurnRequest {
    let mut config = config();
    change(&mut config);
    CreateTurnRequest { config: Some(config), ..say("go") }
}

fn reads(world: &World) -> String {
    format!("{:?}", world.script.requests.lock().unwrap())
}

/// Everything that a turn left: what was streamed, its journal, and the turn.
async fn traces(world: &World, events: &[TurnEvent], turn: &Turn) -> String {
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    format!("{events:?}{journal:?}{turn:?}")
}

#[tokio::test]
async fn arguments_that_a_shield_refuses_are_never_run_and_the_model_is_told() {
    let calls =
        vec![Call("a", "repeat", r#"{"text":"bad"}"#), Call("b", "repeat", r#"{"text":"good"}"#), Call("c", "ask", r#"{"q":"bad"}"#)];
    let world = World::new(vec![calls, vec![Text("as you like")]]).await;
    let (events, turn) = world.run(with(|config| config.tool_argument_shields = ids(&["words"]))).await;
    assert_eq!((turn.status(), said(&turn).as_str(), world.hands.calls()), (TurnStatus::Completed, "as you like", 1));
    let results = tool_results(&turn);
    let told: Vec<(bool, String)> = results.iter().map(|result| (result.is_error, result.joined_text())).collect();
    let refused = (true, "a shield did not let this call through: Not that.".to_owned());
    assert_eq!(told, [refused.clone(), (false, "good".into()), refused]);
    assert!(!names(&events).contains(&"awaiting"), "the client is not asked for what may not be called");
    let judged: Vec<(ShieldStage, String)> = verdicts(&turn).iter().map(|step| (step.stage(), step.call_id.clone())).collect();
    assert_eq!(judged, ["a", "b", "c"].map(|id| (ShieldStage::ToolArguments, id.to_owned())));
    // The verdicts come before anyone can see a call.
    let first_delta = events.iter().position(|event| matches!(event.event, Some(Event::Delta(_)))).unwrap();
    let last_verdict = events
        .iter()
        .rposition(|event| matches!(&event.event, Some(Event::StepCompleted(step)) if matches!(step.step, Some(Step::Shield(_)))));
    assert!(last_verdict.unwrap() < first_delta);
}

#[tokio::test]
async fn a_refused_call_asks_no_person() {
    let world = World::new(vec![vec![Call("a", "repeat", r#"{"text":"bad"}"#)]]).await;
    let request = with(|config| {
        config.tool_argument_shields = ids(&["words"]);
        config.require_approval = ids(&["repeat"]);
    });
    let (events, turn) = world.run(request).await;
    assert_eq!((turn.status(), world.hands.calls()), (TurnStatus::Completed, 0));
    assert!(!names(&events).contains(&"awaiting"));
}

#[tokio::test]
async fn redacted_arguments_are_what_runs_and_what_is_seen() {
    let world = World::new(vec![vec![Text("Let me see. "), Call("a", "repeat", r#"{"text":"my secret"}"#)], vec![Text("done")]]).await;
    let (events, turn) = world.run(with(|config| config.tool_argument_shields = ids(&["mask"]))).await;
    assert_eq!(world.hands.ledger.lock().unwrap()[0].1, r#"{"text":"my [1]"}"#);
    assert_eq!(tool_results(&turn)[0].joined_text(), "my [1]");
    assert!(!traces(&world, &events, &turn).await.contains("secret") && !reads(&world).contains("secret"));
    let Some(Step::Inference(step)) = &turn.steps[0].step else { panic!() };
    assert_eq!(step.pieces.iter().sum::<u32>(), 12 + 17, "words as they came, the call in its new form");
}

#[tokio::test]
async fn a_result_that_a_shield_refuses_is_read_by_nobody() {
    for (tool, stage) in [("repeat", ShieldStage::ToolResult), ("find", ShieldStage::Retrieved)] {
        let arguments = r#"{"text":"b\u0061d news"}"#;
        let world = World::new(vec![vec![Call("a", tool, arguments), Call("b", "add", r#"{"a":1,"b":1}"#)], vec![Text("well")]]).await;
        let request = with(|config| match stage {
            ShieldStage::Retrieved => config.retrieved_shields = ids(&["words"]),
            _ => config.tool_result_shields = ids(&["words"]),
        });
        let (events, turn) = world.run(request).await;
        let results = tool_results(&turn);
        assert_eq!((results[0].is_error, results[0].joined_text().as_str()), (true, "a shield did not let this result through"));
        assert_eq!((turn.status(), results[1].joined_text().as_str()), (TurnStatus::Completed, "2"));
        assert!(!traces(&world, &events, &turn).await.contains("bad news") && !reads(&world).contains("bad news"));
        let verdict = verdicts(&turn).into_iter().find(|step| step.call_id == "a").unwrap();
        assert_eq!((verdict.stage(), verdict.judged_sha256.len()), (stage, 64));
    }
}

#[tokio::test]
async fn a_redacted_result_is_the_result_and_keeps_its_label() {
    for (tool, label) in [("repeat", "tool:repeat"), ("find", "retrieved:bank/doc")] {
        let world = World::new(vec![vec![Call("a", tool, r#"{"text":"my s\u0065cret"}"#)], vec![Text("well")]]).await;
        let (events, turn) = world.run(with(|config| config.tool_result_shields = ids(&["mask", "veil"]))).await;
        let result = tool_results(&turn).remove(0);
        // What one left, the other judged as well.
        assert_eq!((result.joined_text().as_str(), result.parts[0].provenance.as_str(), result.is_error), ("my [2]", label, false));
        assert!(!traces(&world, &events, &turn).await.contains("my secret") && !reads(&world).contains("my secret"));
        assert_eq!(world.script.request(1).messages[2].tool_results().next(), Some(&result));
    }
}

#[tokio::test]
async fn a_redacted_input_is_what_the_model_reads_and_what_the_turn_holds() {
    let world = World::new(vec![]).await;
    let session = world.session().await;
    let mut request = CreateTurnRequest { session_id: session.id.clone(), ..with(|config| config.input_shields = ids(&["mask", "words"])) };
    request.input = vec![Message::user("first"), Message::user("my secret")];
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.status(), turn.input[1].joined_text().as_str()), (TurnStatus::Completed, "my [1]"));
    assert_eq!(turn.input[1].parts[0].provenance, "user");
    let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
    assert!(!format!("{journal:?}").contains("secret"), "nor does the journal have it any more");
    assert_eq!(llama_stack_agents::fold::Fold::of(journal).unwrap().turn, turn);
    world.run(say_in(&session, "and now?")).await;
    assert!(!reads(&world).contains("secret"));
    assert_eq!(world.guards.texts("mask"), ["first", "my secret"], "what a shield has made it need not judge");
    assert_eq!(world.guards.texts("words"), ["first", "my secret", "my [1]"]);
}

#[tokio::test]
async fn a_refused_input_is_in_no_later_history() {
    let world = World::new(vec![]).await;
    let session = world.session().await;
    let mut request = CreateTurnRequest { session_id: session.id.clone(), ..with(|config| config.input_shields = ids(&["words"])) };
    request.input = vec![Message::user("a bad idea")];
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.incomplete_reason.as_str(), refusal(&turn).as_deref()), ("content_filter", Some("Not that.")));
    let (_, next) = world.run(say_in(&session, "something else")).await;
    assert_eq!(next.status(), TurnStatus::Completed);
    assert!(!reads(&world).contains("bad idea"));
    let roles: Vec<Role> = world.script.request(0).messages.iter().map(Message::role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User], "that there was something is told");
}

#[tokio::test]
async fn what_clients_bring_for_their_calls_is_judged_as_a_tools_result() {
    let guarded = || with(|config| config.tool_result_shields = ids(&["words", "mask"]));
    let result = |text: &str| ToolResult { call_id: "a".into(), parts: vec![Part::text(text)], ..ToolResult::default() };
    // Resumed, and in the input of the next turn.
    for (text, left, resumes) in [
        ("bad news", "a shield did not let this result through", true),
        ("my secret", "my [1]", true),
        ("bad news", "a shield did not let this result through", false),
        ("my secret", "my [1]", false),
    ] {
        let world = World::new(vec![vec![Call("a", "ask", r#"{"q":"?"}"#)], vec![Text("well")]]).await;
        let session = world.session().await;
        let (_, waiting) = world.run(CreateTurnRequest { session_id: session.id.clone(), ..guarded() }).await;
        if resumes {
            let resume = ResumeTurnRequest { turn_id: waiting.id.clone(), results: vec![result(text)], ..ResumeTurnRequest::default() };
            rest(world.runtime.resume_turn(&world.cx, resume).await.unwrap()).await;
            let turn = world.turn(&waiting.id).await;
            assert_eq!((turn.status(), tool_results(&turn)[0].joined_text().as_str()), (TurnStatus::Completed, left));
        } else {
            let input = vec![Message::tool(vec![result(text)])];
            let (_, turn) = world.run(CreateTurnRequest { session_id: session.id.clone(), input, ..guarded() }).await;
            assert_eq!(turn.input[0].tool_results().next().unwrap().joined_text(), left);
        }
        assert!(!reads(&world).contains(text) && reads(&world).contains(left));
        let turns = world.runtime.list_turns(&world.cx, Default::default()).await.unwrap().turns;
        for turn in turns {
            let journal = world.store.journal("acme", &turn.id, 0).await.unwrap();
            assert!(!format!("{journal:?}").contains(text), "the journal has it still: {text}");
        }
    }
}

#[tokio::test]
async fn a_shield_may_forbid_what_a_user_only_quotes() {
    let world = World::new(vec![]).await;
    let mut request = with(|config| config.retrieved_shields = ids(&["words"]));
    let quoted = Part::text("bad page").with_provenance("retrieved:web/page");
    request.input = vec![Message::new(Role::User, vec![Part::text("What of this? It is not bad."), quoted])];
    let (_, turn) = world.run(request).await;
    assert_eq!(turn.status(), TurnStatus::Completed);
    let read = world.script.request(0).messages.remove(0);
    let texts: Vec<&str> = read.parts.iter().filter_map(Part::as_text).collect();
    assert_eq!(texts, ["What of this? It is not bad.", "a shield did not let this result through"]);
    assert_eq!(read.parts[1].provenance, "retrieved:web/page");
}

#[tokio::test]
async fn only_a_shield_that_reads_the_conversation_is_shown_it() {
    let world = World::new(vec![vec![Text("hello")]]).await;
    let session = world.session().await;
    world.run(say_in(&session, "hi")).await;
    let mut request =
        CreateTurnRequest { session_id: session.id.clone(), ..with(|config| config.input_shields = ids(&["words", "reader"])) };
    request.input = vec![Message::user("and?")];
    world.run(request).await;
    let judged = world.guards.judged.lock().unwrap().clone();
    let lengths: Vec<(&str, usize)> = judged.iter().map(|request| (request.shield_id.as_str(), request.messages.len())).collect();
    assert_eq!(lengths, [("words", 1), ("reader", 3)]);
}

#[tokio::test]
async fn the_manifests_shields_judge_every_turn_besides_its_own() {
    let defaults = DefaultShields {
        input: ids(&["words"]),
        tool_arguments: ids(&["words"]),
        tool_results: ids(&["mask"]),
        retrieved: ids(&["words"]),
        output: ids(&["words", "mask"]),
    };
    let script = vec![vec![Call("a", "find", r#"{"text":"s\u0065cret"}"#)], vec![Text("a secret")]];
    let world = World::changed(script, |parts| parts.shielding.defaults = defaults).await;
    let mut request = with(|config| config.input_shields = ids(&["warn", "words"]));
    request.input = vec![Message::user("go")];
    let (_, turn) = world.run(request).await;
    assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "a [1]"));
    let asked: Vec<(ShieldStage, String)> = verdicts(&turn).into_iter().map(|step| (step.stage(), step.shield_id)).collect();
    use ShieldStage::{Input, Output, Retrieved, ToolArguments};
    let expected = [
        (Input, "warn"),
        (Input, "words"),
        (ToolArguments, "words"),
        (Retrieved, "mask"),
        (Retrieved, "words"),
        (Output, "words"),
        (Output, "mask"),
    ];
    assert_eq!(asked, expected.map(|(stage, id)| (stage, id.to_owned())));
    // A warning is told in the journal and stops nothing.
    assert!(verdicts(&turn)[0].verdict.as_ref().unwrap().violation.is_some());
}

/// A request makes its agent stricter, and changes nothing else of it.
#[tokio::test]
async fn shields_beside_an_agent_are_added_to_its_own() {
    let world = World::new(vec![vec![Text("fine")]]).await;
    let own = AgentConfig { input_shields: ids(&["mask"]), ..config() };
    let agent = world.runtime.create_agent(&world.cx, CreateAgentRequest { config: Some(own) }).await.unwrap();
    let more = AgentConfig { input_shields: ids(&["words"]), ..AgentConfig::default() };
    let ask = |text: &str, more: AgentConfig| CreateTurnRequest {
        agent_id: agent.id.clone(),
        config: Some(more),
        input: vec![Message::user(text)],
        ..CreateTurnRequest::default()
    };
    let (_, turn) = world.run(ask("my secret", more.clone())).await;
    assert_eq!((turn.agent_id.as_str(), turn.input[0].joined_text().as_str()), (agent.id.as_str(), "my [1]"), "the agent's own");
    let (_, turn) = world.run(ask("a bad idea", more.clone())).await;
    assert_eq!(turn.incomplete_reason, "content_filter", "and the request's");
    let unknown = AgentConfig { output_shields: ids(&["nobody"]), ..AgentConfig::default() };
    assert_eq!(world.begin(ask("x", unknown)).await.err().unwrap().field(), Some("config.output_shields[0]"));
    let error = world.begin(ask("x", AgentConfig { model: "scripted".into(), ..more })).await.err().unwrap();
    assert_eq!(error.field(), Some("config"));
}

#[tokio::test]
async fn a_turn_that_decides_on_a_call_of_its_parent_runs_it_as_it_was_judged() {
    let world = World::new(vec![vec![Call("a", "repeat", r#"{"text":"fine"}"#)], vec![Text("done")]]).await;
    let session = world.session().await;
    let guarded = || {
        let request = with(|config| {
            config.tool_argument_shields = ids(&["words"]);
            config.tool_result_shields = ids(&["words"]);
            config.require_approval = ids(&["repeat"]);
        });
        CreateTurnRequest { session_id: session.id.clone(), ..request }
    };
    let (events, _) = world.run(guarded()).await;
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    let decisions =
        vec![ApprovalDecision { approval_request_id: awaiting.approvals[0].id.clone(), approve: true, ..ApprovalDecision::default() }];
    let (_, turn) = world.run(CreateTurnRequest { input: vec![], decisions, ..guarded() }).await;
    assert_eq!((turn.status(), tool_results(&turn)[0].joined_text().as_str()), (TurnStatus::Completed, "fine"));
}

/// A client that keeps the history itself sends it whole with every request; each of its texts is the same text each time.
#[tokio::test]
async fn a_history_that_comes_with_every_request_is_made_of_the_same_pieces() {
    let world = World::new(vec![]).await;
    let (mut history, mut judged, mut said) = (Vec::new(), 0, 0);
    for n in 0..10 {
        let question = format!("question {n} ").repeat(10);
        said += question.len() as u64;
        history.push(Message::user(question));
        let mut request = with(|config| config.input_shields = ids(&["counting"]));
        request.input = history.clone();
        let (_, turn) = world.run(request).await;
        judged += verdicts(&turn).into_iter().filter_map(|step| step.verdict).map(|verdict| verdict.judged_bytes).sum::<u64>();
        history.push(Message::assistant("done"));
    }
    assert_eq!(judged, said, "each question was judged once");
}

#[tokio::test]
async fn items_that_are_added_without_a_turn_are_judged_by_the_shields_of_every_turn() {
    let defaults = DefaultShields { input: ids(&["words", "mask"]), ..DefaultShields::default() };
    let world = World::changed(vec![], |parts| parts.shielding.defaults = defaults).await;
    let session = world.session().await;
    let add = |text: &str| {
        let input = vec![Message::user(text)];
        CreateTurnRequest { session_id: session.id.clone(), input, append_only: true, ..CreateTurnRequest::default() }
    };
    let (_, fine) = world.run(add("my secret")).await;
    assert_eq!((fine.status(), fine.input[0].joined_text().as_str()), (TurnStatus::Completed, "my [1]"));
    let (_, refused) = world.run(add("a bad idea")).await;
    assert_eq!((refused.status(), refused.incomplete_reason.as_str()), (TurnStatus::Incomplete, "content_filter"));
    world.run(say_in(&session, "what did I say?")).await;
    assert!(reads(&world).contains("my [1]") && !reads(&world).contains("secret") && !reads(&world).contains("bad idea"));
}

/// It was in no journal yet, so the call is one that was cut off: its tool may be asked again, and its result is judged anew.
#[test]
fn a_result_that_was_being_judged_when_the_process_died_is_judged_again() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (script, hands) = (Script::of(vec![vec![Call("a", "add", r#"{"a":1,"b":1}"#)], vec![Text("two")]]), Arc::<Hands>::default());
    let request = with(|config| config.tool_result_shields = ids(&["gate", "mask"]));
    let id = die(&dir, &script, &hands, request, || hands.calls() == 1);
    reborn(dir, script, hands.clone(), async |world: World| {
        world.guards.open.send_replace(true);
        world.runtime.recover().await.unwrap();
        let turn = finished(&world, &id).await;
        assert_eq!(
            (turn.status(), said(&turn).as_str(), tool_results(&turn)[0].joined_text().as_str()),
            (TurnStatus::Completed, "two", "2")
        );
        let ledger = hands.ledger.lock().unwrap().clone();
        assert!(ledger.len() == 2 && ledger[0].2 == ledger[1].2, "under the same key: {ledger:?}");
        assert!(turn.steps.iter().all(|step| step.ended.is_some()));
    });
}

/// Of all the text that shields were shown in twenty turns with tools, hardly any had been judged before.
#[tokio::test]
async fn a_long_session_is_not_judged_again_and_again() {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let answers = (0..20).flat_map(|n| {
        let arguments = leak(format!(r#"{{"text":"{}"}}"#, format!("row {n} ").repeat(40)));
        [vec![Call(leak(format!("c{n}")), "repeat", arguments)], vec![Text(leak(format!("answer {n} ").repeat(30)))]]
    });
    let world = World::new(answers.collect()).await;
    let session = world.session().await;
    let (mut judged, mut known, mut history) = (0, 0, 0);
    for n in 0..20 {
        let mut request = with(|config| {
            let counting = || ids(&["counting"]);
            (config.input_shields, config.output_shields) = (counting(), counting());
            (config.tool_argument_shields, config.tool_result_shields) = (counting(), counting());
        });
        request.session_id = session.id.clone();
        request.input = vec![Message::user(format!("question {n} ").repeat(20))];
        let (_, turn) = world.run(request).await;
        assert_eq!(verdicts(&turn).len(), 4, "the input, the arguments, the result, the answer");
        for verdict in verdicts(&turn).into_iter().filter_map(|step| step.verdict) {
            judged += verdict.judged_bytes;
            known += verdict.known_bytes;
        }
        history +=
            world.script.requests.lock().unwrap().last().unwrap().messages.iter().map(|message| message.joined_text().len()).sum::<usize>();
    }
    assert!(judged > 10_000 && known * 10 <= judged, "{known} of {} bytes were judged before", judged + known);
    assert!(history as u64 > 3 * judged, "the history alone is {history} bytes, {judged} were judged");
}
