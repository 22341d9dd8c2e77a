//! Banks under `kill -9`: what was acknowledged is found, what was deleted stays away, nothing is there twice.
//!
//! ```text
//! documents, one call after the other ─┐
//! documents, in the background ────────┼── the real binary, killed and started again
//! chunks with vectors ─────────────────┘
//!                     │
//! audit: each search, by words and by vectors, gives what the clients' books say, and no more
//! ```
//!
//! On both providers that keep banks in the process, at once; in the long form Qdrant Edge searches by graph at the end.
//! Half of the lives end at a random instant, by SIGKILL; the others just before or just after a commit of the store. A
//! client that was cut off repeats its call until it is acknowledged, so in the end its book is exact. No model is needed:
//! words are searched in `keyword` banks, and vectors are brought along.

mod audit;
mod clients;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use llama_stack_core::{
    Context, Memory, failpoint,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{Bank, BankKind, CreateBankRequest, memory_client::MemoryClient};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    Verdict,
    binary::{self, Process, Site},
};
use clients::Book;

/// Numbers of a vector.
const DIMENSION: u32 = 32;
/// Longest wait for a start, and for what is under way at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where lives end that do not end at random.
const POINTS: [&str; 2] = ["store.before_commit", "store.committed"];
const MANIFEST: &str = "version: 1\nname: drill\nproviders:\n  memory:\n    - { id: sqlite, type: inline::sqlite }\n    - { id: edge, type: \
                        inline::qdrant-edge }\n";
const PROVIDERS: [&str; 2] = ["sqlite", "edge"];

/// Kills of the short form and of the one whose figures go into docs/.
pub const SHORT: u32 = 12;
pub const LONG: u32 = 200;

/// The server as it is now.
#[derive(Clone)]
struct Up {
    life: u64,
    memory: Arc<dyn Memory>,
}

impl Up {
    fn new(life: u64, address: std::net::SocketAddr) -> Self {
        let channel = channel(&format!("http://{address}"), Duration::from_secs(10)).unwrap();
        Self { life, memory: Arc::new(Remote::<MemoryClient<Channel>>::new(channel)) }
    }
}

/// What the clients share.
struct Field {
    up: watch::Receiver<Option<Up>>,
    stopping: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl Field {
    /// The server, once there is one.
    async fn up(&self) -> Up {
        let mut up = self.up.clone();
        let there = up.wait_for(Option::is_some).await.expect("the drill ended while a client waited for the server");
        there.clone().expect("it was waited for")
    }

    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }
}

pub(crate) async fn run(long: bool) -> Verdict {
    storm(&binary::path(), if long { LONG } else { SHORT }).await
}

/// Kills `binary` so often, and judges what its banks hold then. Prints what it did.
///
/// # Panics
/// Where the drill itself cannot run, for example without the binary.
pub async fn storm(binary: &Path, kills: u32) -> Verdict {
    let site = Site::new(binary, MANIFEST);
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (ups, up) = watch::channel(None);
    let field = Arc::new(Field { up, stopping: AtomicBool::new(false), faults: Mutex::default() });

    // What a life acknowledged before anything else: the banks themselves.
    let (process, up) = start(&site, 0, &[]).await.expect("the first server did not start");
    let mut places = Vec::new();
    for provider in PROVIDERS {
        let (words, vectors) = (bank(&up, provider, BankKind::Keyword).await, bank(&up, provider, BankKind::Vector).await);
        places.push(Place { words, vectors, clients: JoinSet::new() });
    }
    process.kill().await;
    let begun = Instant::now();
    for Place { words, vectors, clients } in &mut places {
        for at in 0..2 {
            clients.spawn(clients::foreground(field.clone(), words.clone(), format!("f{at}"), fork(&mut random)));
            clients.spawn(clients::background(field.clone(), words.clone(), format!("b{at}"), fork(&mut random)));
            clients.spawn(clients::chunks(field.clone(), vectors.clone(), format!("v{at}"), fork(&mut random)));
        }
    }
    let mut points = 0;
    for life in 1..=u64::from(kills) {
        points += u32::from(live(&site, &field, &ups, life, &mut random).await);
    }
    field.stopping.store(true, Ordering::Relaxed);
    let mut found = audit::Sums::default();
    match start(&site, u64::from(kills) + 1, &[]).await {
        Some((process, up)) => {
            ups.send_replace(Some(up.clone()));
            for Place { words, vectors, clients } in places {
                let books = clients.join_all().await;
                audit::audit(&field, up.memory.as_ref(), &words, &vectors, &books, &mut found).await;
            }
            process.kill().await;
        }
        None => field.fault("the last server did not start".into()),
    }
    let faults = std::mem::take(&mut *field.faults.lock().unwrap());
    faults.iter().take(20).for_each(|fault| println!("{fault}"));
    if !faults.is_empty() {
        println!("state is kept in {}", site.keep().display());
    }
    println!("{:.0} s, {points} of {kills} kills at a commit", begun.elapsed().as_secs_f64());
    Verdict {
        line: format!(
            "crash-memory: {kills} kills, {} documents and {} chunks found, {} deleted and gone, {} ingestions ended, {} faults",
            found.documents,
            found.chunks,
            found.deleted,
            found.ingestions,
            faults.len()
        ),
        holds: faults.is_empty() && found.documents > 0 && found.chunks > 0 && found.deleted > 0 && found.ingestions > 0,
    }
}

/// A provider's banks, and who is busy with them.
struct Place {
    words: Bank,
    vectors: Bank,
    clients: JoinSet<Book>,
}

async fn bank(up: &Up, provider: &str, kind: BankKind) -> Bank {
    let embedding_dimension = if kind == BankKind::Vector { DIMENSION } else { 0 };
    let (name, provider_id) = (format!("{provider}-{kind:?}"), provider.to_owned());
    let request = CreateBankRequest { name, kind: kind.into(), embedding_dimension, provider_id, ..CreateBankRequest::default() };
    up.memory.create_bank(&Context::default(), request).await.unwrap()
}

async fn start(site: &Site, life: u64, variables: &[(&str, String)]) -> Option<(Process, Up)> {
    let mut process = site.spawn(variables);
    let address = tokio::time::timeout(PATIENCE, process.ready()).await.ok().flatten()?;
    Some((process, Up::new(life, address)))
}

/// From a start to a violent end. Whether that was at a commit.
async fn live(site: &Site, field: &Field, ups: &watch::Sender<Option<Up>>, life: u64, random: &mut StdRng) -> bool {
    let point = POINTS.get(random.random_range(0..POINTS.len() * 2));
    let variables: Vec<_> = point.iter().map(|name| (failpoint::VARIABLE, format!("{name}:{}", random.random_range(1..=40)))).collect();
    let delay = Duration::from_millis(random.random_range(5..=300));
    let mut met = false;
    match start(site, life, &variables).await {
        Some((mut process, up)) => {
            ups.send_replace(Some(up));
            let ended = process.ends_within(if point.is_some() { Duration::from_secs(3) } else { delay }).await;
            met = point.is_some() && ended.is_some();
            if let (None, Some(status)) = (point, ended) {
                field.fault(format!("the server ended by itself: {status}"));
            }
            ups.send_replace(None);
            process.kill().await;
        }
        // It came to its commit while it started: what an earlier life left was gone on with.
        None if point.is_some() => met = true,
        None => field.fault(format!("life {life} did not begin")),
    }
    met
}

fn fork(random: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(random.random())
}
