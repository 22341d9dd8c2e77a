//! Replicas on one Postgres: restarted in turn, stopped and woken, and with the database restarted below them.
//!
//! ```text
//!            ┌── replica ──┐
//! load ── balancer          ├── Postgres (the drill's own, which it stops and starts)
//!            └── replica ──┘
//!                 │
//!               model: says what it is asked, word by word, or waits at a gate
//! ```

mod balancer;
mod cut;
mod load;
mod model;
mod outage;
mod rolling;
mod zombie;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use llama_stack_core::Inference;
use llama_stack_test_postgres as postgres;
use llama_stack_tests::served::{self, OnSocket};

use crate::{
    Verdict,
    binary::{self, Process, Site},
};
use model::Paced;

/// The name of the distribution that the drill runs.
const NAME: &str = "replicas";
/// For what has to happen some time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is enough.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How often each replica is restarted.
    pub restarts: u32,
    /// How often Postgres is.
    pub outages: u32,
    pub zombies: u32,
    /// How often the network to one of them is cut.
    pub cuts: u32,
    /// Clients at once.
    pub clients: u32,
}

impl Size {
    /// For every day.
    pub const SHORT: Self = Self { restarts: 1, outages: 1, zombies: 1, cuts: 1, clients: 6 };
    /// For the figures in docs/.
    pub const LONG: Self = Self { restarts: 20, outages: 10, zombies: 10, cuts: 10, clients: 16 };
}

pub(crate) async fn run(long: bool) -> Verdict {
    let (path, size) = (binary::path(), if long { Size::LONG } else { Size::SHORT });
    let mut verdicts = Vec::new();
    for part in [Part::Rolling, Part::Zombie, Part::Outage] {
        match drill(&path, size, part).await {
            Some(verdict) => verdicts.push(verdict),
            None => return Verdict { line: "replicas: skipped, there is no Postgres here".into(), holds: false },
        }
    }
    // Not everywhere may a program cut a network, and not by everyone: that is said, and no failure.
    verdicts.extend(cut::run(&path, size).await);
    let lines: Vec<&str> = verdicts.iter().map(|verdict| verdict.line.as_str()).collect();
    Verdict { line: format!("replicas: {}", lines.join("; ")), holds: verdicts.iter().all(|verdict| verdict.holds) }
}

/// What is done to the replicas.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// They are restarted, one after the other, under load.
    Rolling,
    /// One is stopped in the middle of a turn, and wakes when the other has finished it.
    Zombie,
    /// Postgres is restarted under load.
    Outage,
}

/// Does it to two replicas of `binary`; `None`, said on standard error, where there is no Postgres.
///
/// # Panics
/// Where the drill itself cannot run.
pub async fn drill(binary: &Path, size: Size, part: Part) -> Option<Verdict> {
    let server = postgres::Server::start_or_skip().unwrap()?;
    let place = Place::new(binary, server).await;
    Some(match part {
        Part::Rolling => rolling::run(&place, size).await,
        Part::Zombie => zombie::run(&place, size).await,
        Part::Outage => outage::run(&place, size).await,
    })
}

/// What replicas share: a database and a model.
struct Place {
    server: postgres::Server,
    model: Arc<Paced>,
    _served: OnSocket<dyn Inference>,
    sites: [Site; 2],
}

impl Place {
    async fn new(binary: &Path, server: postgres::Server) -> Self {
        let model = Arc::new(Paced::default());
        let served = served::inference(model.clone()).await;
        let store = server.database().unwrap();
        let manifest = format!(
            "version: 1\nname: {NAME}\nserver: {{ drain_notice_seconds: 1, drain_seconds: 20 }}\nstore: {{ url: \"{store}\" }}\n\
             agents: {{ lease_seconds: 3 }}\nproviders:\n  inference:\n    - {{ id: model, type: remote::grpc, config: {{ url: \"{}\" }} }}\n",
            served.url
        );
        let sites = [Site::new(binary, &manifest), Site::new(binary, &manifest)];
        Self { server, model, _served: served, sites }
    }

    /// A replica that is ready.
    async fn start(&self, site: usize) -> (Process, SocketAddr) {
        let mut process = self.sites[site].spawn(&[]);
        let address = tokio::time::timeout(PATIENCE, process.ready()).await.expect("not ready in time");
        (process, address.expect("the replica ended before it was ready"))
    }

    fn log(&self, site: usize) -> String {
        self.sites[site].log(NAME)
    }
}

/// What must not be.
#[derive(Default)]
struct Faults(Mutex<Vec<String>>);

impl Faults {
    fn add(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Shows the first ones, and says how many there are.
    fn show(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().take(10).for_each(|fault| println!("fault: {fault}"));
        all.len()
    }
}
