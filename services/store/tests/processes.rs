//! What the end of a process leaves, and what two processes on one file see. The child is this program again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test program fails by panicking")]

mod fixture;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fixture::{TENANT, begin, step};
use llama_stack_proto::v1::{TurnStatus::InProgress, turn_event::Event};
use llama_stack_store::{Durability, Store};
use rand::Rng as _;
use tokio::{task::JoinHandle, time::timeout};

const CYCLES: usize = 24;
/// Longer than any process takes to its first append, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let args: Vec<String> = std::env::args().collect();
    if let [_, role, url, durability] = args.as_slice()
        && role == "append-for-ever"
    {
        return runtime.block_on(append_for_ever(url, durability));
    }
    // Other arguments are the test runner's: a filter that names neither test runs none.
    let asked = |name: &str| args.iter().skip(1).filter(|arg| !arg.starts_with('-')).all(|arg| name.contains(arg.as_str()));
    if asked("a_killed_process_loses_no_acknowledged_append") {
        runtime.block_on(a_killed_process_loses_no_acknowledged_append());
    }
    if asked("two_processes_share_a_file") {
        runtime.block_on(two_processes_share_a_file());
    }
}

/// Appends from eight tasks, and says each event that was acknowledged.
async fn append_for_ever(url: &str, durability: &str) {
    let durability = if durability == "power" { Durability::Power } else { Durability::Process };
    let store = Store::open(url, durability).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let turn = begin(&store, TENANT).await;
                for number in 2.. {
                    let event = step(&turn, number, &format!("{turn}/{number}"));
                    store.append(TENANT, &turn, 1, &[event], InProgress).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{turn} {number}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// A child at work, and what it says.
struct Working {
    child: Child,
    /// An append was acknowledged.
    has_begun: Arc<AtomicBool>,
    reader: JoinHandle<BTreeMap<String, u64>>,
}

impl Working {
    fn start(url: &str, durability: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program).args(["append-for-ever", url, durability]).stdout(Stdio::piped()).spawn();
        let (mut child, has_begun) = (child.unwrap(), Arc::<AtomicBool>::default());
        let (out, begun) = (BufReader::new(child.stdout.take().unwrap()), has_begun.clone());
        let reader = tokio::task::spawn_blocking(move || {
            let mut acknowledged = BTreeMap::new();
            for line in out.lines() {
                // The last line may be cut off.
                let Some((turn, number)) = line.unwrap().split_once(' ').map(|(turn, number)| (turn.to_owned(), number.to_owned())) else {
                    break;
                };
                acknowledged.insert(turn, number.parse().unwrap());
                begun.store(true, Ordering::SeqCst);
            }
            acknowledged
        });
        Self { child, has_begun, reader }
    }

    /// Lets it work for a while, kills it, and gives the greatest acknowledged number of each turn.
    async fn killed_after(mut self, work: Duration) -> BTreeMap<String, u64> {
        tokio::time::sleep(work).await;
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.await.unwrap()
    }
}

async fn until(is_so: &AtomicBool) {
    let so = async {
        while !is_so.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, so).await.expect("nothing was appended");
}

async fn assert_whole(store: &Store, turn: &str, acknowledged: u64) {
    let journal = store.journal(TENANT, turn, 0).await.unwrap();
    assert!(journal.len() as u64 >= acknowledged, "turn {turn}: {acknowledged} acknowledged, {} there", journal.len());
    for (event, number) in journal.iter().zip(1..) {
        assert_eq!(event.sequence, number);
        if let Some(Event::StepStarted(step)) = &event.event {
            assert_eq!(step.id, format!("{turn}/{number}"));
        }
    }
}

async fn a_killed_process_loses_no_acknowledged_append() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/state.db", folder.path().display());
    let mut acknowledged = BTreeMap::new();
    for cycle in 0..CYCLES {
        let durability = if cycle % 2 == 0 { "power" } else { "process" };
        let work = Duration::from_millis(rand::rng().random_range(20..200));
        let working = Working::start(&url, durability);
        // Half of them may die while they open the file.
        if cycle % 4 >= 2 {
            until(&working.has_begun).await;
        }
        acknowledged.extend(working.killed_after(work).await);
        let store = fixture::open(&url).await;
        for (turn, number) in &acknowledged {
            assert_whole(&store, turn, *number).await;
        }
        store.close().await;
    }
    let events: u64 = acknowledged.values().sum();
    assert!(events > 0, "no child came as far as an append");
    println!("a_killed_process_loses_no_acknowledged_append: {CYCLES} kills, {events} acknowledged, 0 lost");
}

async fn two_processes_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/state.db", folder.path().display());
    let working = Working::start(&url, "power");
    let here = Arc::<AtomicBool>::default();
    let killed = tokio::spawn({
        let here = here.clone();
        async move {
            until(&working.has_begun).await;
            until(&here).await;
            working.killed_after(Duration::from_millis(500)).await
        }
    });
    let store = fixture::open(&url).await;
    let turn = begin(&store, TENANT).await;
    let mut number = 1;
    while !killed.is_finished() {
        number += 1;
        store.append(TENANT, &turn, 1, &[step(&turn, number, &format!("{turn}/{number}"))], InProgress).await.unwrap();
        here.store(true, Ordering::SeqCst);
    }
    assert_whole(&store, &turn, number).await;
    let theirs = killed.await.unwrap();
    for (turn, number) in &theirs {
        assert_whole(&store, turn, *number).await;
    }
    let total: u64 = theirs.values().sum();
    assert!(total > 0 && number > 1, "both must have written: {total}, {number}");
    println!("two_processes_share_a_file: {number} appends here, {total} there, no error");
}
