//! Agents that call agents.

use std::sync::Arc;

use llama_stack_core::{
    Agents as _, Code,
    manifest::{DeclaredAgent, DeclaredAgentTool},
};
use llama_stack_proto::v1::{
    Agent, AgentConfig, AgentTool, ApprovalDecision, CancelTurnRequest, CreateAgentRequest, CreateTurnRequest, Limits, ListTurnsRequest,
    Message, ToolStep, Turn, TurnStatus, UpdateAgentRequest, step::Step, turn_event::Event,
};

use crate::{
    crash::finished,
    doubles::{
        Hands,
        Say::{Call, Hang, Text},
        Script,
    },
    world::{PATIENCE, World, config, refusal, rest, said, say, tool_results, until},
};

const ASK: &str = r#"{"input":"what is 1 and 2?"}"#;

async fn helper(world: &World, change: impl FnOnce(&mut AgentConfig)) -> Agent {
    let mut config = AgentConfig { name: "adder".into(), instructions: "You add.".into(), ..config() };
    config.client_tools.clear();
    change(&mut config);
    world.runtime.create_agent(&world.cx, CreateAgentRequest { config: Some(config) }).await.unwrap()
}

fn calling(agent: &Agent, handoff: bool) -> CreateTurnRequest {
    let mut request = say("help");
    let tool = AgentTool { agent_id: agent.id.clone(), handoff, ..AgentTool::default() };
    request.config.as_mut().unwrap().agents = vec![tool];
    request
}

fn tool_steps(turn: &Turn) -> Vec<ToolStep> {
    turn.steps
        .iter()
        .filter_map(|step| match &step.step {
            Some(Step::Tool(tool)) => Some(tool.clone()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn an_agent_answers_anothers_call_in_a_turn_of_its_own() {
    let calls =
        vec![vec![Call("x", "ask_adder", ASK)], vec![Call("y", "add", r#"{"a":1,"b":2}"#)], vec![Text("three")], vec![Text("It is 3.")]];
    let world = World::new(calls).await;
    let agent = helper(&world, |_| ()).await;
    let (_, turn) = world.run(calling(&agent, false)).await;
    assert_eq!(
        (turn.status(), said(&turn).as_str(), tool_results(&turn)[0].joined_text().as_str()),
        (TurnStatus::Completed, "It is 3.", "three")
    );
    let asked = world.script.request(1);
    assert_eq!((asked.messages[0].joined_text().as_str(), asked.messages[1].joined_text().as_str()), ("You add.", "what is 1 and 2?"));
    assert_eq!(asked.messages[1].parts[0].provenance, "tool:ask_adder", "a model's words are not a person's");
    // What the other took counts as the caller's, and its turn is no part of the session's history.
    let tool = &tool_steps(&turn)[0];
    let child = world.turn(&tool.child_turn_id).await;
    assert_eq!((child.caller_turn_id.as_str(), child.depth, turn.usage.unwrap().completion_tokens), (turn.id.as_str(), 1, 20));
    let list = ListTurnsRequest { session_id: turn.session_id.clone(), ..ListTurnsRequest::default() };
    assert_eq!(world.runtime.list_turns(&world.cx, list).await.unwrap().turns.len(), 1);
    let next = CreateTurnRequest { session_id: turn.session_id.clone(), ..say("thanks") };
    world.run(next).await;
    assert_eq!(world.script.request(4).messages.len(), 5);
}

#[tokio::test]
async fn who_is_cancelled_cancels_whom_it_called() {
    let world = World::new(vec![vec![Call("x", "ask_adder", ASK)], vec![Text("well "), Hang]]).await;
    let agent = helper(&world, |_| ()).await;
    let mut events = world.begin(calling(&agent, false)).await.unwrap();
    let id = futures::StreamExt::next(&mut events).await.unwrap().unwrap().turn_id;
    until(|| world.script.asked() == 2).await;
    let turn = world.runtime.cancel_turn(&world.cx, CancelTurnRequest { id }).await.unwrap();
    let child = world.turn(&tool_steps(&turn)[0].child_turn_id).await;
    assert_eq!((turn.status(), child.status()), (TurnStatus::Cancelled, TurnStatus::Cancelled));
}

#[tokio::test]
async fn agents_call_agents_only_so_deep_and_within_the_callers_means() {
    let deep = || vec![Call("", "ask_adder", ASK)];
    let world = World::new(vec![deep(), deep(), vec![Text("one level down")], vec![Text("done")]]).await;
    let agent = helper(&world, |_| ()).await;
    let mut own = agent.config.clone().unwrap();
    own.agents = vec![AgentTool { agent_id: agent.id.clone(), ..AgentTool::default() }];
    world.runtime.update_agent(&world.cx, UpdateAgentRequest { id: agent.id.clone(), config: Some(own) }).await.unwrap();
    let mut request = calling(&agent, false);
    request.config.as_mut().unwrap().limits = Some(Limits { max_depth: 1, max_tokens: 1_000, ..Limits::default() });
    let (_, turn) = world.run(request).await;
    assert_eq!(turn.status(), TurnStatus::Completed);
    let child = world.turn(&tool_steps(&turn)[0].child_turn_id).await;
    assert!(tool_results(&child)[0].joined_text().contains("at most 1 deep"), "{child:?}");
    assert_eq!(child.config.unwrap().limits.unwrap().max_tokens, 995, "what is left of the caller's");
}

#[tokio::test]
async fn an_agent_that_fails_is_told_to_the_caller() {
    let world = World::new(vec![vec![Call("x", "ask_adder", ASK)], vec![crate::doubles::Say::Fail], vec![Text("a pity")]]).await;
    let agent = helper(&world, |_| ()).await;
    let (_, turn) = world.run(calling(&agent, false)).await;
    let told = tool_results(&turn)[0].clone();
    assert!(told.is_error && told.joined_text().contains("the model is away") && !told.joined_text().contains("secret"), "{told:?}");
    assert_eq!(said(&turn), "a pity");
}

#[tokio::test]
async fn a_hand_off_gives_the_rest_of_the_turn_to_another() {
    let world = World::new(vec![vec![Call("x", "transfer_to_adder", "{}")], vec![Text("Adding now.")]]).await;
    let agent = helper(&world, |config| config.tools = vec!["add".into()]).await;
    let (_, turn) = world.run(calling(&agent, true)).await;
    assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "Adding now."));
    let asked = world.script.request(1);
    assert_eq!((asked.messages[0].joined_text().as_str(), asked.tools.len()), ("You add.", 1));
    let told = asked.messages.last().unwrap().tool_results().next().unwrap().joined_text();
    assert_eq!(told, "adder has the conversation now");
}

#[tokio::test]
async fn a_hand_off_that_waits_for_approval_is_made_once_it_is_approved() {
    let world = World::new(vec![vec![Call("x", "transfer_to_adder", "{}")], vec![Text("Adding now.")]]).await;
    let agent = helper(&world, |config| config.tools = vec!["add".into()]).await;
    let mut request = calling(&agent, true);
    request.config.as_mut().unwrap().require_approval = vec!["transfer_to_adder".into()];
    let (events, turn) = world.run(request).await;
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    let approve = ApprovalDecision { approval_request_id: awaiting.approvals[0].id.clone(), approve: true, reason: String::new() };
    let resume = llama_stack_proto::v1::ResumeTurnRequest { turn_id: turn.id, decisions: vec![approve], ..Default::default() };
    let events = rest(world.runtime.resume_turn(&world.cx, resume).await.unwrap()).await;
    assert_eq!(said(&world.turn(&events[0].turn_id).await), "Adding now.");
    assert_eq!(world.script.request(1).messages[0].joined_text(), "You add.");
}

#[tokio::test]
async fn declared_agents_are_there_from_the_start_and_stay_as_they_are() {
    let declared = |agents: &[&str]| DeclaredAgent {
        model: "scripted".into(),
        instructions: "You do.".into(),
        agents: agents.iter().map(|agent| DeclaredAgentTool { agent: (*agent).into(), ..DeclaredAgentTool::default() }).collect(),
        top_p: Some(0.5),
        reasoning_effort: "low".into(),
        parallel_tool_calls: Some(false),
        ..DeclaredAgent::default()
    };
    let both = [("boss".to_owned(), declared(&["clerk"])), ("clerk".to_owned(), declared(&[]))];
    let world = World::changed(vec![vec![Call("x", "ask_clerk", ASK)], vec![Text("filed")], vec![Text("good")]], |parts| {
        parts.config.declared = both.into();
    })
    .await;
    let request = CreateTurnRequest { agent_id: "boss".into(), input: vec![Message::user("file it")], ..CreateTurnRequest::default() };
    let (_, turn) = world.run(request).await;
    assert_eq!((said(&turn).as_str(), tool_results(&turn)[0].joined_text().as_str()), ("good", "filed"));
    let asked = world.script.request(0);
    assert_eq!((asked.sampling.unwrap().top_p, asked.parallel_tool_calls), (Some(0.5), Some(false)));
    assert_eq!(asked.reasoning_effort, "low");
    let change = UpdateAgentRequest { id: "boss".into(), config: Some(config()) };
    assert_eq!(world.runtime.update_agent(&world.cx, change).await.unwrap_err().code(), Code::FailedPrecondition);
    let broken = llama_stack_agents::Runtime::new(llama_stack_agents::RuntimeParts {
        store: world.store.clone(),
        inference: world.script.clone(),
        tools: None,
        safety: None,
        memory: None,
        connect: None,
        policy: None,
        config: llama_stack_core::manifest::Agents { declared: [("a".into(), declared(&["nobody"]))].into(), ..Default::default() },
        shielding: llama_stack_core::manifest::Safety::default(),
        tasks: tokio_util::task::TaskTracker::new(),
        shutdown: world.shutdown.clone(),
    });
    let error = broken.err().unwrap();
    assert_eq!(error.field(), Some("agents.declared.a.agents"), "{error:?}");
}

#[test]
fn an_agent_that_was_called_before_a_crash_is_not_called_again() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let script =
        Script::of(vec![vec![Call("x", "ask_adder", ASK)], vec![Text("half "), Hang], vec![Text("whole")], vec![Text("It is so.")]]);
    let hands = Arc::<Hands>::default();
    let rt = tokio::runtime::Runtime::new().unwrap();
    let id = rt.block_on(async {
        let world = World::at(dir.clone(), script.clone(), hands.clone()).await;
        let agent = helper(&world, |_| ()).await;
        let mut events = world.begin(calling(&agent, false)).await.unwrap();
        let id = futures::StreamExt::next(&mut events).await.unwrap().unwrap().turn_id;
        until(|| script.asked() == 2).await;
        id
    });
    rt.shutdown_timeout(PATIENCE);
    let rt = tokio::runtime::Runtime::new().unwrap();
    rt.block_on(async {
        let world = World::at(dir, script.clone(), hands).await;
        assert_eq!(world.runtime.recover().await.unwrap(), 2);
        let turn = finished(&world, &id).await;
        assert_eq!((said(&turn).as_str(), tool_results(&turn)[0].joined_text().as_str(), script.asked()), ("It is so.", "whole", 4));
    });
}

#[tokio::test]
async fn who_takes_a_turn_over_takes_none_of_its_shields_away() {
    let world = World::new(vec![vec![Call("x", "transfer_to_adder", "{}")], vec![Text("a bad sum")]]).await;
    let agent = helper(&world, |_| ()).await;
    let mut request = calling(&agent, true);
    request.config.as_mut().unwrap().output_shields = vec!["words".into()];
    let (events, turn) = world.run(request).await;
    assert_eq!((turn.incomplete_reason.as_str(), refusal(&turn).as_deref()), ("content_filter", Some("Not that.")));
    assert!(!format!("{events:?}").contains("bad sum"));
}

#[tokio::test]
async fn an_agents_answer_is_a_tools_result_to_the_shields_of_its_caller() {
    let world = World::new(vec![vec![Call("x", "ask_adder", ASK)], vec![Text("a bad sum")], vec![Text("well")]]).await;
    let agent = helper(&world, |_| ()).await;
    let mut request = calling(&agent, false);
    request.config.as_mut().unwrap().tool_result_shields = vec!["words".into()];
    let (events, turn) = world.run(request).await;
    assert_eq!(
        (turn.status(), tool_results(&turn)[0].joined_text().as_str()),
        (TurnStatus::Completed, "a shield did not let this result through")
    );
    assert!(!format!("{events:?}{turn:?}").contains("bad sum"));
}
