//! Turns under `kill -9`: nothing that was acknowledged is lost, nothing is done twice, nothing hangs.
//!
//! ```text
//! turns (gRPC) ────┐                                    ┌── model: a function of the conversation
//! responses (HTTP) ┼── the real binary, killed and ─────┤
//! watchers ────────┘   started again (lives)            └── tools: with a ledger
//!                                  │
//! audit: what the stack holds = what the clients saw = what the ledger says
//! ```
//!
//! Half of the lives end at a random instant, by SIGKILL; the others at a fail point (`llama_stack_core::failpoint`), each of
//! them in turn. Clients know of a crash only that their connection broke: they come back with the same idempotency
//! key, or watch on from the last number that they saw.

mod audit;
mod field;
pub(crate) mod ledger;
pub(crate) mod lives;
pub(crate) mod model;
pub(crate) mod plan;
mod responses;
pub(crate) mod turns;

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_test_postgres as postgres;
use llama_stack_tests::served;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Verdict,
    binary::{self, Site},
    figures::{Times, millis},
};
use field::{Fault, Field};
use ledger::{Ledger, Works};
use lives::Lives;
use model::{MODEL, Model};

/// Clients at once: so many sessions over gRPC, and conversations over HTTP.
const CLIENTS: (usize, usize) = (12, 4);
/// A turn that has not ended after this is stuck: many lives long, on a slow machine as well.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that a tool takes.
const SLOWEST_TOOL: Duration = Duration::from_millis(8);

/// How much is enough.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub kills: u32,
    pub turns: usize,
    /// After this the drill ends and has failed.
    pub limit: Duration,
}

impl Size {
    /// For every day.
    pub const SHORT: Self = Self { kills: 54, turns: 200, limit: Duration::from_secs(1_800) };
    /// For the figures in docs/.
    pub const LONG: Self = Self { kills: 500, turns: 10_000, limit: Duration::from_secs(3 * 3_600) };
}

/// Where the turns are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    /// A server that the drill starts itself.
    Postgres,
}

pub(crate) async fn run(long: bool, postgres: bool) -> Verdict {
    let database = if postgres { Database::Postgres } else { Database::Sqlite };
    storm(&binary::path(), if long { Size::LONG } else { Size::SHORT }, database).await
}

/// Runs `binary` through the drill and judges what is left. Prints what it did.
///
/// # Panics
/// Where the drill itself cannot run, for example without the binary or without Postgres.
pub async fn storm(binary: &Path, size: Size, database: Database) -> Verdict {
    let server = (database == Database::Postgres).then(|| postgres::Server::start_or_skip().unwrap().expect("there is no Postgres here"));
    let store = server.as_ref().map(|server| server.database().unwrap());
    let ledger = Arc::new(Ledger::default());
    let tools = served::tools(Arc::new(Works { ledger: ledger.clone(), slowest: SLOWEST_TOOL })).await;
    let model = Model::start().await;
    let site = Site::new(binary, &manifest(model.address, &tools.url, store.as_deref(), "power"));
    let seed = rand::random();
    println!("{database:?}, seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let (up, ups) = watch::channel(None);
    let field = Arc::new(Field::new(ups));
    let mut lives = Lives::new(site, field.clone(), up, fork(&mut random));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.0 {
        clients.spawn(turns::client(field.clone(), fork(&mut random)));
    }
    for _ in 0..CLIENTS.1 {
        clients.spawn(responses::client(field.clone(), fork(&mut random)));
    }
    let begun = Instant::now();
    while lives.kills < size.kills || field.turns() < size.turns || !lives.all_points_met() {
        if begun.elapsed() > size.limit {
            field.fault(Fault::Wrong, format!("not enough of everything after {} s", size.limit.as_secs()));
            break;
        }
        lives.live().await;
    }
    field.stop();
    let sums = match lives.stay().await {
        Some((process, up)) => {
            // Each client's own patience ends it.
            while let Some(ended) = clients.join_next().await {
                ended.unwrap();
            }
            let sums = audit::audit(&field, up.agents.as_ref(), &ledger).await;
            process.kill().await;
            sums.unwrap_or_else(|error| {
                field.fault(Fault::Wrong, format!("the stack cannot be read: {error:?}"));
                audit::Sums::default()
            })
        }
        None => {
            field.fault(Fault::Stuck, "the last server did not start".into());
            audit::Sums::default()
        }
    };
    let verdict = report(&field, &lives, &sums, begun.elapsed());
    lives.leave();
    verdict
}

fn fork(random: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(random.random())
}

/// One model and one group of tools. Without a store's URL: SQLite in the home.
pub(crate) fn manifest(model: SocketAddr, tools: &str, store: Option<&str>, durability: &str) -> String {
    let url = store.map(|url| format!(", url: \"{url}\"")).unwrap_or_default();
    format!(
        "version: 1\nname: drill\nstore: {{ durability: {durability}{url} }}\nproviders:\n  inference:\n    - id: model\n      \
         type: remote::openai\n      config:\n        url: \"http://{model}/v1\"\n        models: [{MODEL}]\n  tools:\n    - id: works\n      \
         type: remote::grpc\n      config:\n        url: \"{tools}\"\n"
    )
}

fn report(field: &Field, lives: &Lives, sums: &audit::Sums, elapsed: Duration) -> Verdict {
    let row = |name: &str, figure: String| println!("{name:<44} {figure:>12}");
    row("seconds", format!("{:.0}", elapsed.as_secs_f64()));
    row("calls executed", sums.executions.to_string());
    row("calls repeated, answered from the ledger", sums.repeats.to_string());
    row("calls told as \"may have run\" (of these: had)", format!("{} ({})", sums.cut_off, sums.cut_off_and_run));
    if !lives.starts.is_empty() {
        let starts = Times::new(lives.starts.clone());
        row("restart, p50 and p99 ms", format!("{:.0} {:.0}", millis(starts.p50()), millis(starts.p99())));
    }
    for (name, count) in &lives.points {
        row(&format!("killed at {name}"), count.to_string());
    }
    let at_points: u32 = lives.points.values().sum();
    row("killed at other instants", (lives.kills - at_points).to_string());
    row("refused a moment before a place was free", field.too_early().to_string());
    field.print_faults();
    let (lost, duplicated, stuck) = (field.count(Fault::Lost), field.count(Fault::Duplicated), field.count(Fault::Stuck));
    row("wrong otherwise", field.count(Fault::Wrong).to_string());
    Verdict {
        line: format!("crash: {} turns, {} kills, {lost} lost, {duplicated} duplicated, {stuck} stuck", sums.turns, lives.kills),
        holds: !field.has_faults() && lives.all_points_met(),
    }
}
