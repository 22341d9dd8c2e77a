//! Several processes on one database: each is a runtime of its own over a store of its own.

use std::{
    sync::{Arc, Condvar, Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use llama_stack_agents::{Runtime, RuntimeParts};
use llama_stack_core::{Agents as _, Authenticated, Context, Result, Tools, context::DELEGATE, ids, manifest};
use llama_stack_proto::v1::{
    AgentConfig, AgentTool, ApiKey, CancelTurnRequest, CreateAgentRequest, GetTurnRequest, InvokeToolRequest, InvokeToolResponse,
    ListToolsRequest, ListToolsResponse, Part, Quota, ResumeTurnRequest, ToolResult, Turn, TurnEvent, TurnStatus, WatchTurnRequest, step,
    turn_event::Event,
};
use llama_stack_store::{Durability, Store};
use llama_stack_test_postgres::Server;
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    doubles::{
        Hands,
        Say::{self, Call, Text},
        Script,
    },
    world::{PATIENCE, rest, said, say, tool_results, until},
};

/// Short, so that a test that waits for its end is.
const SHORT: Duration = Duration::from_millis(900);

/// Of a process that takes over: it looks every three seconds, and stands still for several without losing what it has.
const STEADY: Duration = Duration::from_secs(9);

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

/// A database that several processes may open.
struct Place {
    url: String,
    _folder: Option<TempDir>,
}

fn file() -> Option<Place> {
    let folder = tempfile::tempdir().unwrap();
    Some(Place { url: format!("sqlite://{}", folder.path().join("state.db").display()), _folder: Some(folder) })
}

/// `None`, said on standard error, where there is no Postgres.
fn postgres() -> Option<Place> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Server::start_or_skip().unwrap()).as_ref()?;
    Some(Place { url: server.database().unwrap(), _folder: None })
}

/// The same tests on each kind of database.
macro_rules! on {
    ($($database:ident),*: $tests:tt) => { $(on!(@ $database $tests);)* };
    (@ $database:ident [$($test:ident),* $(,)?]) => {
        mod $database {
            $(#[test]
            fn $test() {
                let Some(place) = super::$database() else { return };
                super::$test(&place.url);
            })*
        }
    };
}

mod on_each {
    use super::*;

    on!(file, postgres: [
        a_stuck_process_is_overtaken_and_its_late_write_refused,
        a_turn_that_runs_is_left_alone,
        a_turn_is_cancelled_from_another_process,
        who_is_cancelled_from_another_process_cancels_whom_it_called,
        of_two_processes_that_resume_a_turn_one_does,
        what_a_process_gives_up_goes_on_elsewhere_at_once,
        what_goes_on_elsewhere_is_charged_to_the_key_that_it_was_begun_with,
    ]);
}

mod on_postgres {
    use super::*;

    on!(postgres: [
        a_dead_processs_turn_goes_on_in_one_that_lives,
        a_dead_processs_call_that_may_be_repeated_has_the_same_key,
    ]);
}

fn cx() -> Context {
    Context::test("acme")
}

async fn process(url: &str, script: &Arc<Script>, tools: Arc<dyn Tools>, lease: Duration) -> Arc<Runtime> {
    let parts = RuntimeParts {
        store: Store::open(url, Durability::Process).await.unwrap(),
        inference: script.clone(),
        tools: Some(tools),
        safety: None,
        memory: None,
        connect: None,
        policy: None,
        config: manifest::Agents::default(),
        shielding: llama_stack_core::manifest::Safety::default(),
        tasks: TaskTracker::new(),
        shutdown: CancellationToken::new(),
    };
    Runtime::with_lease(parts, lease).unwrap()
}

/// A process: when it is shut down, nothing of it runs any more.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn turn(runtime: &Runtime, id: &str) -> Turn {
    runtime.get_turn(&cx(), GetTurnRequest { id: id.into() }).await.unwrap()
}

async fn watched(runtime: &Runtime, id: &str) -> Vec<TurnEvent> {
    rest(runtime.watch_turn(&cx(), WatchTurnRequest { turn_id: id.into(), after_sequence: 0 }).await.unwrap()).await
}

/// The numbers of what is journalled, without deltas.
fn numbers(events: &[TurnEvent]) -> Vec<u64> {
    events.iter().filter(|event| !matches!(event.event, Some(Event::Delta(_)))).map(|event| event.sequence).collect()
}

fn keys(hands: &Hands, tool: &str) -> Vec<String> {
    hands.ledger.lock().unwrap().iter().filter(|call| call.0 == tool).map(|call| call.2.clone()).collect()
}

/// One process dies in the middle of a call; the other one, which has been there all the time and looks for such turns from then
/// on, goes on. The calls' keys in both, and the turn.
fn overtaken(url: &str, tool: &'static str) -> (Vec<String>, Vec<String>, Turn, Arc<Script>) {
    let script = Script::of(vec![vec![Call("c", tool, "{}")], vec![Text("all right")]]);
    let (first, second) = (Arc::<Hands>::default(), Arc::new(Hands { awake: true, ..Hands::default() }));
    let survivor = tokio_runtime();
    let runtime = survivor.block_on(process(url, &script, second.clone(), STEADY));

    let dying = tokio_runtime();
    let id = dying.block_on(async {
        let runtime = process(url, &script, first.clone(), SHORT).await;
        let mut stream = runtime.create_turn(&cx(), say("go")).await.unwrap();
        let id = stream.next().await.unwrap().unwrap().turn_id;
        until(|| first.calls() == 1).await;
        id
    });
    dying.shutdown_timeout(PATIENCE);

    let turn = survivor.block_on(async {
        runtime.recover().await.unwrap();
        let events = watched(&runtime, &id).await;
        assert_eq!(numbers(&events), (1..=events.last().unwrap().sequence).collect::<Vec<u64>>());
        turn(&runtime, &id).await
    });
    (keys(&first, tool), keys(&second, tool), turn, script)
}

fn a_dead_processs_turn_goes_on_in_one_that_lives(url: &str) {
    let (first, second, turn, script) = overtaken(url, "hang");
    assert_eq!((first.len(), second.len()), (1, 0), "the call is not repeated");
    assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "all right"));
    let told = script.request(1).messages[2].tool_results().next().unwrap().clone();
    assert!(told.is_error && told.joined_text().contains("may have run"));
}

fn a_dead_processs_call_that_may_be_repeated_has_the_same_key(url: &str) {
    let (first, second, turn, _) = overtaken(url, "hang_retry");
    assert!(first.len() == 1 && first == second, "{first:?} {second:?}");
    assert_eq!(turn.status(), TurnStatus::Completed);
    assert_eq!(tool_results(&turn)[0].joined_text(), "awake");
}

/// Holds the whole thread that calls `hang`, as a stopped process or machine would, until it is opened.
struct Stuck {
    hands: Arc<Hands>,
    open: Arc<(Mutex<bool>, Condvar)>,
}

#[async_trait]
impl Tools for Stuck {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        self.hands.list_tools(cx, request).await
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let key = cx.idempotency_key().unwrap_or_default().to_owned();
        self.hands.ledger.lock().unwrap().push((request.name, request.arguments, key));
        let (open, opened) = &*self.open;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        Ok(InvokeToolResponse { parts: vec![Part::text("too late")], is_error: false, ..InvokeToolResponse::default() })
    }
}

fn a_stuck_process_is_overtaken_and_its_late_write_refused(url: &str) {
    let script = Script::of(vec![vec![Call("c", "hang", "{}")], vec![Text("all right")]]);
    let (hands, open) = (Arc::<Hands>::default(), Arc::<(Mutex<bool>, Condvar)>::default());
    let stuck = std::thread::spawn({
        let (url, script, tools) = (url.to_owned(), script.clone(), Arc::new(Stuck { hands: hands.clone(), open: open.clone() }));
        move || {
            // One thread for everything: while the call holds it, nothing of this process runs, no renewal either.
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let runtime = process(&url, &script, tools, SHORT).await;
                rest(runtime.create_turn(&cx(), say("go")).await.unwrap()).await
            })
        }
    });
    let other = tokio_runtime();
    let journal = other.block_on(async {
        until(|| hands.calls() == 1).await;
        let store = Store::open(url, Durability::Process).await.unwrap();
        let id = store.unfinished_turns().await.unwrap().remove(0).turn_id;
        let runtime = process(url, &script, hands.clone(), STEADY).await;
        runtime.recover().await.unwrap();
        let journal = watched(&runtime, &id).await;
        let ended = turn(&runtime, &id).await;
        assert_eq!((ended.status(), said(&ended).as_str()), (TurnStatus::Completed, "all right"));

        *open.0.lock().unwrap() = true;
        open.1.notify_all();
        (id, journal, runtime, ended)
    });
    let (id, journal, runtime, ended) = journal;
    let seen = stuck.join().unwrap();
    assert_eq!(seen.last(), journal.last(), "who watches the stuck process learns the end from the journal");
    assert_eq!(numbers(&seen), numbers(&journal));
    assert_eq!(other.block_on(turn(&runtime, &id)), ended);
    assert_eq!((hands.calls(), script.asked()), (1, 2), "no call and no inference ran twice");
}

/// For longer than its lease. A machine that stands still for as long may lose it rightly: then a longer one is tried.
fn a_turn_that_runs_is_left_alone(url: &str) {
    let expected = (TurnStatus::Completed, "rested".to_owned(), 1, 0, 2);
    let mut told = run_beside_another(url, SHORT, r#"{"ms":2500}"#);
    if told != expected {
        told = run_beside_another(url, STEADY, r#"{"ms":25000}"#);
    }
    assert_eq!(told, expected);
}

/// A turn that runs for so long beside a process that looks for others' turns: its end, its calls in both, and the inferences.
fn run_beside_another(url: &str, lease: Duration, arguments: &'static str) -> (TurnStatus, String, usize, usize, usize) {
    let script = Script::of(vec![vec![Call("c", "sleep", arguments)], vec![Text("rested")]]);
    let (first, second) = (Arc::<Hands>::default(), Arc::<Hands>::default());
    tokio_runtime().block_on(async {
        let owner = process(url, &script, first.clone(), lease).await;
        let other = process(url, &script, second.clone(), lease).await;
        other.recover().await.unwrap();
        let events = rest(owner.create_turn(&cx(), say("go")).await.unwrap()).await;
        let Some(Event::Ended(turn)) = &events.last().unwrap().event else { panic!("the turn has no end") };
        (turn.status(), said(turn), first.calls(), second.calls(), script.asked())
    })
}

fn a_turn_is_cancelled_from_another_process(url: &str) {
    let script = Script::of(vec![vec![Call("c", "hang", "{}")]]);
    let hands = Arc::<Hands>::default();
    tokio_runtime().block_on(async {
        let owner = process(url, &script, hands.clone(), SHORT).await;
        let other = process(url, &script, hands.clone(), LONG).await;
        let mut stream = owner.create_turn(&cx(), say("go")).await.unwrap();
        let id = stream.next().await.unwrap().unwrap().turn_id;
        until(|| hands.calls() == 1).await;
        let cancelled = other.cancel_turn(&cx(), CancelTurnRequest { id: id.clone() }).await.unwrap();
        assert_eq!(cancelled.status(), TurnStatus::Cancelled);
        // The owner learns it by its next renewal; its watchers read the end that the other wrote.
        let Some(Event::Ended(seen)) = rest(stream).await.pop().unwrap().event else { panic!("the turn has no end") };
        assert_eq!(seen.status(), TurnStatus::Cancelled);
        assert_eq!(turn(&owner, &id).await, *seen);
        assert_eq!((hands.calls(), script.asked()), (1, 1));
    });
}

fn who_is_cancelled_from_another_process_cancels_whom_it_called(url: &str) {
    let script = Script::of(vec![vec![Call("x", "ask_adder", r#"{"input":"1 and 2"}"#)], vec![Say::Hang]]);
    tokio_runtime().block_on(async {
        let owner = process(url, &script, Arc::<Hands>::default(), SHORT).await;
        let other = process(url, &script, Arc::<Hands>::default(), LONG).await;
        let adder = AgentConfig { model: "scripted".into(), name: "adder".into(), ..AgentConfig::default() };
        let agent_id = owner.create_agent(&cx(), CreateAgentRequest { config: Some(adder) }).await.unwrap().id;
        let mut request = say("go");
        request.config.as_mut().unwrap().agents = vec![AgentTool { agent_id, ..AgentTool::default() }];
        let id = owner.create_turn(&cx(), request).await.unwrap().next().await.unwrap().unwrap().turn_id;
        until(|| script.asked() == 2).await;
        let cancelled = other.cancel_turn(&cx(), CancelTurnRequest { id }).await.unwrap();
        let Some(step::Step::Tool(tool)) = &cancelled.steps[1].step else { panic!("{cancelled:?}") };
        let called = turn(&other, &tool.child_turn_id).await;
        assert_eq!((cancelled.status(), called.status()), (TurnStatus::Cancelled, TurnStatus::Cancelled));
    });
}

fn of_two_processes_that_resume_a_turn_one_does(url: &str) {
    let script = Script::of(vec![vec![Say::Call("a", "ask", "{}")], vec![Text("hello Ann")]]);
    let hands = Arc::<Hands>::default();
    tokio_runtime().block_on(async {
        let processes = [process(url, &script, hands.clone(), SHORT).await, process(url, &script, hands.clone(), SHORT).await];
        let id = rest(processes[0].create_turn(&cx(), say("go")).await.unwrap()).await[0].turn_id.clone();
        let resume = |runtime: Arc<Runtime>| {
            let results = vec![ToolResult { call_id: "a".into(), parts: vec![Part::text("Ann")], ..ToolResult::default() }];
            let request = ResumeTurnRequest { turn_id: id.clone(), results, ..ResumeTurnRequest::default() };
            async move { runtime.resume_turn(&cx(), request).await }
        };
        let (a, b) = tokio::join!(resume(processes[0].clone()), resume(processes[1].clone()));
        let (streams, refusals): (Vec<_>, Vec<_>) = [a, b].into_iter().partition(|resumed| resumed.is_ok());
        assert_eq!((streams.len(), refusals.len()), (1, 1));
        assert_eq!(refusals.into_iter().next().unwrap().err().unwrap().reason(), Some("turn_not_awaiting"));
        rest(streams.into_iter().next().unwrap().unwrap()).await;
        for runtime in &processes {
            let turn = turn(runtime, &id).await;
            assert_eq!((turn.status(), said(&turn).as_str()), (TurnStatus::Completed, "hello Ann"));
        }
        assert_eq!(script.asked(), 2);
    });
}

fn what_a_process_gives_up_goes_on_elsewhere_at_once(url: &str) {
    let script = Script::of(vec![vec![Call("c", "hang", "{}")], vec![Text("all right")]]);
    let hands = Arc::<Hands>::default();
    tokio_runtime().block_on(async {
        let leaving = process(url, &script, hands.clone(), LONG).await;
        let other = process(url, &script, hands.clone(), LONG).await;
        let mut stream = leaving.create_turn(&cx(), say("go")).await.unwrap();
        let first = stream.next().await.unwrap().unwrap();
        until(|| hands.calls() == 1).await;
        assert_eq!(other.recover().await.unwrap(), 0, "its lease holds");
        assert_eq!(leaving.release().await.unwrap(), 1);
        assert_eq!(other.recover().await.unwrap(), 1);
        let journal = watched(&other, &first.turn_id).await;
        let seen: Vec<TurnEvent> = [first].into_iter().chain(rest(stream).await).collect();
        assert_eq!(numbers(&seen), numbers(&journal));
        assert_eq!(turn(&leaving, &seen[0].turn_id).await.status(), TurnStatus::Completed);
        assert_eq!((hands.calls(), script.asked()), (1, 2));
    });
}

/// The key is a gateway's, which speaks for others than its own tenant's.
fn what_goes_on_elsewhere_is_charged_to_the_key_that_it_was_begun_with(url: &str) {
    let quota = Quota { tokens_per_day: Some(5), ..Quota::default() };
    let key = ApiKey { id: ids::new("key"), tenant: "gateway".into(), quota: Some(quota), ..ApiKey::default() };
    let keyed = Context::default().with_authenticated(&Authenticated {
        principal: cx().principal().clone(),
        credential: format!("{DELEGATE}{}", key.id),
        quota: manifest::Quota::from(&quota),
        key_tenant: Some(key.tenant.clone()),
        ..Authenticated::default()
    });
    tokio_runtime().block_on(async {
        let store = Store::open(url, Durability::Process).await.unwrap();
        store.insert_api_key(&key, "hash").await.unwrap();
        let charged = async |cx: &Context, is_forgotten: bool| {
            let script = Script::of(vec![vec![Call("c", "hang", "{}")], vec![Text("all right")]]);
            let hands = Arc::<Hands>::default();
            let leaving = process(url, &script, hands.clone(), LONG).await;
            let other = process(url, &script, hands.clone(), LONG).await;
            let mut stream = leaving.create_turn(cx, say("go")).await.unwrap();
            let id = stream.next().await.unwrap().unwrap().turn_id;
            until(|| hands.calls() == 1).await;
            if is_forgotten {
                assert_eq!(store.forget_api_keys(&key.tenant, None, None).await.unwrap(), 1);
            }
            assert_eq!(leaving.release().await.unwrap(), 1);
            assert_eq!(other.recover().await.unwrap(), 1);
            watched(&other, &id).await;
            script.keys.lock().unwrap().clone()
        };
        let shown = Some((key.id.clone(), key.tenant.clone(), manifest::Quota::from(&quota)));
        assert_eq!(charged(&keyed, false).await, [shown.clone(), shown.clone()]);
        assert!(charged(&cx(), false).await.iter().all(Option::is_none));
        assert_eq!(charged(&keyed, true).await, [shown, None], "a key that is gone is charged no more");
    });
}
