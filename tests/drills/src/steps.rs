//! Durable steps of turns: what one costs, and how many a second 64 sessions make together.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures::future::join_all;
use llama_stack_core::{ids, manifest::Durability};
use llama_stack_proto::v1::{InferenceStep, Message, Step, Turn, TurnEvent, TurnStatus, step::Step as StepKind, turn_event::Event};
use llama_stack_store::{BeginTurn, FIRST_EPOCH, Holder, Store};

use crate::{
    Verdict,
    figures::{Times, millis},
};

const TENANT: &str = "drill";

pub(crate) async fn run(long: bool) -> Verdict {
    let (alone, each) = if long { (2_000, 200) } else { (400, 40) };
    println!("{:<10} {:>12} {:>12} {:>16}", "", "p50 ms", "p99 ms", "64 sessions/s");
    let mut figures = Vec::new();
    for (name, durability) in [("power", Durability::Power), ("process", Durability::Process)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), durability).await;
        let times = Times::new(session(&store, alone).await);
        let begun = Instant::now();
        join_all((0..64).map(|_| session(&store, each))).await;
        let per_second = f64::from(64 * each) / begun.elapsed().as_secs_f64();
        store.close().await;
        println!("{name:<10} {:>12.3} {:>12.3} {per_second:>16.0}", millis(times.p50()), millis(times.p99()));
        figures.push((millis(times.p50()), per_second));
    }
    let fsync = fsyncs(alone.min(300));
    println!("{:<10} {:>12.3} {:>12.3}   (a 1 kB write and its fsync, for comparison)", "disk", millis(fsync.p50()), millis(fsync.p99()));
    let ((power, power_rate), (process, process_rate)) = (figures[0], figures[1]);
    Verdict {
        line: format!(
            "steps: power p50 {power:.2} ms, bare fsync {:.2} ms, ratio {:.2}, {power_rate:.0} steps/s at 64 sessions; process p50 {process:.3} ms, {process_rate:.0} steps/s",
            millis(fsync.p50()),
            power / millis(fsync.p50())
        ),
        holds: power <= 5.0 && process <= 0.3 && power_rate >= 2_000.0,
    }
}

async fn open(folder: &Path, durability: Durability) -> Store {
    let url = format!("sqlite://{}", folder.join("state.db").display());
    Store::open(&url, durability).await.unwrap()
}

/// One turn of `count` steps, each awaited before the next. How long each took.
async fn session(store: &Store, count: u32) -> Vec<Duration> {
    let (turn_id, session_id) = (ids::new("turn"), ids::new("session"));
    let turn = Turn { id: turn_id.clone(), session_id: session_id.clone(), status: TurnStatus::InProgress.into(), ..Turn::default() };
    let created = event(&turn_id, 1, Event::Created(Box::new(turn)));
    let session = llama_stack_proto::v1::Session { id: session_id, created: Some(ids::now()), ..Default::default() };
    let holder = Holder { owner: "drill", now: ids::now(), lease: Duration::from_secs(15) };
    store
        .begin_turn(TENANT, BeginTurn { holder, created: &created, api_key: "", idempotency: None, new_session: Some(&session) })
        .await
        .unwrap();
    let mut times = Vec::new();
    for n in 0..count {
        let inference = InferenceStep { message: Some(Message::assistant("x".repeat(1_000))), ..InferenceStep::default() };
        let step = Step { id: ids::new("step"), index: n, step: Some(StepKind::Inference(inference)), ..Step::default() };
        let events = [event(&turn_id, u64::from(n) + 2, Event::StepCompleted(step))];
        let begun = Instant::now();
        store.append(TENANT, &turn_id, FIRST_EPOCH, &events, TurnStatus::InProgress).await.unwrap();
        times.push(begun.elapsed());
    }
    times
}

fn event(turn_id: &str, sequence: u64, event: Event) -> TurnEvent {
    TurnEvent { turn_id: turn_id.into(), sequence, time: Some(ids::now()), event: Some(event) }
}

/// What this disk takes for the least that durability costs.
fn fsyncs(count: u32) -> Times {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&[1; 1_000]).unwrap();
        file.sync_data().unwrap();
        times.push(begun.elapsed());
    }
    Times::new(times)
}
