//! The server's lives: it is started, it is killed, and it is started again on what the last one left behind.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::{
    Agents, failpoint,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::agents_client::AgentsClient;
use rand::{Rng, rngs::StdRng};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::field::{Fault, Field};
use crate::binary::{Process, Site};

/// A server that is up.
#[derive(Clone)]
pub(crate) struct Up {
    /// Counts the lives.
    pub(crate) life: u64,
    pub(crate) address: SocketAddr,
    pub(crate) agents: Arc<dyn Agents>,
}

impl Up {
    pub(crate) fn new(life: u64, address: SocketAddr) -> Self {
        let channel = channel(&format!("http://{address}"), Duration::from_secs(10)).unwrap();
        Self { life, address, agents: Arc::new(Remote::<AgentsClient<Channel>>::new(channel)) }
    }
}

/// How a life ends.
enum End {
    /// So long after its start, ready or not.
    Early(Duration),
    /// So long after something has happened in it.
    Late(Duration),
    /// At a fail point, when that is met for the n-th time.
    Point(&'static str, u32),
}

/// SIGABRT: it ended itself.
const ABORTED: i32 = 6;
/// Longest wait for a start.
const START: Duration = Duration::from_secs(60);
/// Longest wait for something to happen in a life, and for a fail point to be met; then it is killed all the same.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) struct Lives {
    site: Site,
    field: Arc<Field>,
    up: watch::Sender<Option<Up>>,
    random: StdRng,
    lives: u64,
    pub(crate) kills: u32,
    /// How often each fail point ended a life.
    pub(crate) points: BTreeMap<&'static str, u32>,
    /// From exec to ready.
    pub(crate) starts: Vec<Duration>,
}

impl Lives {
    pub(crate) fn new(site: Site, field: Arc<Field>, up: watch::Sender<Option<Up>>, random: StdRng) -> Self {
        let points = failpoint::NAMES.map(|name| (name, 0)).into();
        Self { site, field, up, random, lives: 0, kills: 0, points, starts: Vec::new() }
    }

    /// Whether every fail point has ended a life.
    pub(crate) fn all_points_met(&self) -> bool {
        self.points.values().all(|count| *count > 0)
    }

    /// One life, from its start to its violent end.
    pub(crate) async fn live(&mut self) {
        let end = self.choose();
        let begun = Instant::now();
        let variables = match &end {
            End::Point(name, count) => vec![(failpoint::VARIABLE, format!("{name}:{count}"))],
            End::Early(_) | End::Late(_) => Vec::new(),
        };
        let mut process = self.site.spawn(&variables);
        let patience = if let End::Early(delay) = &end { *delay } else { START };
        match tokio::time::timeout(patience, process.ready()).await {
            Ok(Some(address)) => {
                self.starts.push(begun.elapsed());
                self.up.send_replace(Some(Up::new(self.lives, address)));
                self.await_end(&end, begun, &mut process).await;
            }
            Ok(None) => self.ended_early(&end, &mut process).await,
            Err(_) if matches!(end, End::Early(_)) => {}
            Err(_) => self.field.fault(Fault::Wrong, format!("the server was not ready within {} s", START.as_secs())),
        }
        self.up.send_replace(None);
        process.kill().await;
        self.kills += 1;
        self.lives += 1;
    }

    /// The last life, which nobody ends.
    pub(crate) async fn stay(&mut self) -> Option<(Process, Up)> {
        let mut process = self.site.spawn(&[]);
        let address = tokio::time::timeout(START, process.ready()).await.ok().flatten()?;
        let up = Up::new(self.lives, address);
        self.up.send_replace(Some(up.clone()));
        Some((process, up))
    }

    /// Takes the site down; what it held stays where there are faults to be looked into.
    pub(crate) fn leave(self) {
        if self.field.has_faults() {
            println!("state and log are kept in {}", self.site.keep().display());
        }
    }

    /// Fail points and random instants in turn; the points that were met least come first.
    fn choose(&mut self) -> End {
        if self.lives % 2 == 1 {
            let least = self.points.iter().min_by_key(|(_, count)| **count).map(|(name, _)| *name).unwrap_or("end.journalled");
            let most = match least {
                "recover.turn" => 3,
                "input.before" | "input.journalled" | "resume.journalled" => 6,
                _ => 24,
            };
            return End::Point(least, self.random.random_range(1..=most));
        }
        let delay = Duration::from_millis(self.random.random_range(5..=200));
        if self.random.random_bool(0.25) { End::Early(delay) } else { End::Late(delay) }
    }

    /// It ended before it said that it was ready. At its fail point it may: a start that takes long has commits of its own.
    async fn ended_early(&mut self, end: &End, process: &mut Process) {
        match (end, process.ends_within(START).await) {
            (End::Point(name, _), Some(status)) if status.signal() == Some(ABORTED) => *self.points.entry(name).or_default() += 1,
            (_, ended) => self.field.fault(Fault::Wrong, format!("the server ended before it was ready: {ended:?}")),
        }
    }

    async fn await_end(&mut self, end: &End, begun: Instant, process: &mut Process) {
        let ended = match end {
            End::Early(delay) => process.ends_within(delay.saturating_sub(begun.elapsed())).await,
            End::Late(delay) => {
                self.field.something_happens(IDLE).await;
                process.ends_within(*delay).await
            }
            End::Point(name, _) => match process.ends_within(IDLE).await {
                Some(status) if status.signal() == Some(ABORTED) => {
                    *self.points.entry(name).or_default() += 1;
                    None
                }
                other => other,
            },
        };
        if let Some(status) = ended {
            self.field.fault(Fault::Wrong, format!("the server ended by itself: {status}"));
        }
    }
}
