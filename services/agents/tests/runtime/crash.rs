//! A process that dies: its tokio runtime is torn down in the middle of a turn, and another opens the same file.

use std::sync::Arc;

use futures::StreamExt as _;
use llama_stack_agents::RuntimeParts;
use llama_stack_core::Agents as _;
use llama_stack_proto::v1::{
    ApprovalDecision, CreateTurnRequest, ResumeTurnRequest, TurnStatus, WatchTurnRequest, step, turn_event::Event,
};
use tempfile::TempDir;

use crate::{
    doubles::{
        Hands,
        Say::{self, Call, Hang, Text},
        Script,
    },
    world::{PATIENCE, World, rest, said, say, tool_results, until},
};

/// Runs a turn until `dead`, kills everything that runs, and gives the turn's id.
pub fn die(dir: &Arc<TempDir>, script: &Arc<Script>, hands: &Arc<Hands>, request: CreateTurnRequest, dead: impl Fn() -> bool) -> String {
    die_in(dir, script, hands, |_| (), request, dead)
}

pub fn die_in(
    dir: &Arc<TempDir>,
    script: &Arc<Script>,
    hands: &Arc<Hands>,
    change: impl FnOnce(&mut RuntimeParts),
    request: CreateTurnRequest,
    dead: impl Fn() -> bool,
) -> String {
    let process = tokio::runtime::Runtime::new().unwrap();
    let id = process.block_on(async {
        let world = World::with(dir.clone(), script.clone(), hands.clone(), change).await;
        let mut stream = world.begin(request).await.unwrap();
        let id = stream.next().await.unwrap().unwrap().turn_id;
        until(dead).await;
        id
    });
    process.shutdown_timeout(PATIENCE);
    id
}

pub fn reborn(dir: Arc<TempDir>, script: Arc<Script>, hands: Arc<Hands>, then: impl AsyncFnOnce(World)) {
    reborn_in(dir, script, hands, |_| (), then);
}

pub fn reborn_in(
    dir: Arc<TempDir>,
    script: Arc<Script>,
    hands: Arc<Hands>,
    change: impl FnOnce(&mut RuntimeParts),
    then: impl AsyncFnOnce(World),
) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::with(dir, script, hands, change).await;
        then(world).await;
    });
}

pub async fn finished(world: &World, id: &str) -> llama_stack_proto::v1::Turn {
    let watch = WatchTurnRequest { turn_id: id.into(), after_sequence: 0 };
    let events = rest(world.runtime.watch_turn(&world.cx, watch).await.unwrap()).await;
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert!(numbers.is_sorted() && numbers[0] == 1);
    world.turn(id).await
}

fn crash_in_tool(tool: &'static str) -> (Vec<(String, String, String)>, llama_stack_proto::v1::Turn, Arc<Script>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let calls = vec![Call("c1", "add", r#"{"a":1,"b":1}"#), Call("c2", tool, "{}")];
    let (script, first) = (Script::of(vec![calls, vec![Text("all right")]]), Arc::<Hands>::default());
    let id = die(&dir, &script, &first, say("go"), || first.calls() == 2);
    // Time for the journal to have the result of the call that did end.
    let second = Arc::new(Hands { awake: true, ..Hands::default() });
    let mut turn = None;
    reborn(dir, script.clone(), second.clone(), async |world: World| {
        assert_eq!(world.runtime.recover().await.unwrap(), 1);
        turn = Some(finished(&world, &id).await);
    });
    let mut ledger = first.ledger.lock().unwrap().clone();
    ledger.extend(second.ledger.lock().unwrap().clone());
    (ledger, turn.unwrap(), script)
}

#[test]
fn a_cut_off_call_that_may_be_repeated_runs_again_under_the_same_key() {
    let (ledger, turn, _) = crash_in_tool("hang_retry");
    let keys: Vec<&str> = ledger.iter().filter(|call| call.0 == "hang_retry").map(|call| call.2.as_str()).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].len() == 64, "{ledger:?}");
    assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "all right"));
    assert_eq!(tool_results(&turn)[1].joined_text(), "awake");
}

#[test]
fn a_cut_off_call_that_may_not_be_repeated_is_told_to_the_model() {
    let (ledger, turn, script) = crash_in_tool("hang");
    assert_eq!(ledger.iter().filter(|call| call.0 == "hang").count(), 1, "{ledger:?}");
    assert_eq!(turn.status(), TurnStatus::Completed);
    let told = script.request(1).messages[2].tool_results().nth(1).unwrap().clone();
    assert!(told.is_error && told.joined_text().contains("may have run"));
}

#[test]
fn a_cut_off_inference_runs_again() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (script, hands) = (Script::of(vec![vec![Text("half an "), Hang]]), Arc::<Hands>::default());
    let id = die(&dir, &script, &hands, say("go"), || script.asked() == 1);
    script.then(vec![Text("a whole answer")]);
    reborn(dir, script.clone(), hands, async |world: World| {
        assert_eq!(world.turn(&id).await.status(), TurnStatus::InProgress);
        assert_eq!(world.runtime.recover().await.unwrap(), 1);
        let turn = finished(&world, &id).await;
        assert_eq!((turn.status(), said(&turn).as_str(), turn.steps.len()), (TurnStatus::Completed, "a whole answer", 2));
        // It is whose it was, who is charged for it.
        assert_eq!(*script.callers.lock().unwrap(), ["tester", "tester"]);
        // The words that are lost are a step of their own, so that who saw them can tell them from those that count.
        let lost = turn.steps[0].step.clone();
        assert!(matches!(lost, Some(step::Step::Inference(lost)) if lost.cut_off && lost.message.is_none()));
        assert_eq!(world.runtime.recover().await.unwrap(), 0);
    });
    assert_eq!(script.request(0), script.request(1));
}

#[test]
fn a_cut_off_call_whose_tool_asks_waits_for_a_person() {
    for approve in [true, false] {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (script, hands) = (Script::of(vec![vec![Say::Call("a", "hang_ask", "{}")]]), Arc::<Hands>::default());
        let id = die(&dir, &script, &hands, say("go"), || hands.calls() == 1);
        let awake = Arc::new(Hands { awake: true, ..Hands::default() });
        reborn(dir, script, awake.clone(), async |world: World| {
            world.runtime.recover().await.unwrap();
            let events =
                rest(world.runtime.watch_turn(&world.cx, WatchTurnRequest { turn_id: id.clone(), after_sequence: 0 }).await.unwrap()).await;
            let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
            let [asked] = awaiting.approvals.as_slice() else { panic!("{awaiting:?}") };
            assert_eq!((asked.asked_by.as_str(), world.hands.calls()), ("interrupted", 0));
            let decisions = vec![ApprovalDecision { approval_request_id: asked.id.clone(), approve, ..ApprovalDecision::default() }];
            let resume = ResumeTurnRequest { turn_id: id.clone(), decisions, ..ResumeTurnRequest::default() };
            rest(world.runtime.resume_turn(&world.cx, resume).await.unwrap()).await;
            let turn = world.turn(&id).await;
            let told = tool_results(&turn)[0].joined_text();
            assert_eq!(
                (turn.status(), told.contains("may have run"), awake.calls()),
                (TurnStatus::Completed, !approve, usize::from(approve))
            );
        });
    }
}

#[test]
fn a_turn_that_waits_for_its_client_still_waits() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (script, hands) = (Script::of(vec![vec![Say::Call("a", "ask", "{}")]]), Arc::<Hands>::default());
    // It waits, durably, when the process ends.
    let process = tokio::runtime::Runtime::new().unwrap();
    let id = process.block_on(async {
        let world = World::at(dir.clone(), script.clone(), hands.clone()).await;
        world.run(say("go")).await.1.id
    });
    process.shutdown_timeout(PATIENCE);
    reborn(dir, script, hands, async |world: World| {
        world.runtime.recover().await.unwrap();
        let turn = finished(&world, &id).await;
        assert_eq!(turn.status(), TurnStatus::AwaitingTools);
        let results = vec![llama_stack_proto::v1::ToolResult { call_id: "a".into(), ..Default::default() }];
        let resume = llama_stack_proto::v1::ResumeTurnRequest {
            turn_id: id.clone(),
            results,
            ..llama_stack_proto::v1::ResumeTurnRequest::default()
        };
        rest(world.runtime.resume_turn(&world.cx, resume).await.unwrap()).await;
        assert_eq!(world.turn(&id).await.status(), TurnStatus::Completed);
    });
}
