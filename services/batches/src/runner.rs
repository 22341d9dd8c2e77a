//! Which batches this process runs: it claims what nobody runs, renews what it has, and gives up what it cannot finish.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use llama_stack_core::{Code, Files, Result, ids, manifest};
use llama_stack_proto::v1::BatchStatus;
use llama_stack_store::{HeldBatch, Holder, Store};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Ask, author, job::Job};

/// How long a batch stays this process's without a renewal.
const LEASE: Duration = Duration::from_secs(15);
/// Between two renewals, and two looks for batches that nobody runs.
const BEAT: Duration = Duration::from_secs(5);
/// Batches that this process runs at once; the others wait, oldest first.
const AT_ONCE: usize = 8;

/// The service, and what runs its batches.
pub struct Batcher {
    pub(crate) store: Store,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) config: manifest::Batches,
    /// There is something to look at before the next beat.
    pub(crate) look: Notify,
    /// A permit is a line that runs.
    pub(crate) lines: Arc<Semaphore>,
    /// Names this process's life.
    name: String,
    running: Mutex<HashMap<Key, Running>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Tenant and id.
type Key = (String, String);

struct Running {
    epoch: i64,
    signals: Signals,
}

/// What a running batch is told.
#[derive(Clone, Default)]
pub(crate) struct Signals {
    /// Stop without a word: it is another's now, or the process ends.
    pub(crate) gone: CancellationToken,
    /// Finish with what is there.
    pub(crate) cancelled: CancellationToken,
}

impl Batcher {
    /// Nothing runs before [`Batcher::start`].
    pub fn new(
        store: Store,
        files: Arc<dyn Files>,
        config: manifest::Batches,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            files,
            look: Notify::new(),
            lines: Arc::new(Semaphore::new(config.lines_at_once)),
            config,
            name: ids::new("runner"),
            running: Mutex::default(),
            tasks,
            shutdown,
        })
    }

    /// From now on this process runs batches, until the shutdown: its own, and those that others left.
    pub fn start(self: &Arc<Self>, ask: Arc<dyn Ask>) {
        let batcher = self.clone();
        self.tasks.spawn(async move {
            let mut beat = tokio::time::interval(BEAT);
            loop {
                tokio::select! {
                    () = batcher.shutdown.cancelled() => break,
                    _ = beat.tick() => {}
                    () = batcher.look.notified() => {}
                }
                if let Err(error) = batcher.look_around(&ask).await {
                    tracing::warn!(error = ?error, "batches could not be looked after");
                }
            }
            for running in batcher.running().values() {
                running.signals.gone.cancel();
            }
        });
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_around(self: &Arc<Self>, ask: &Arc<dyn Ask>) -> Result<()> {
        let holder = || Holder { owner: &self.name, now: ids::now(), lease: LEASE };
        if !self.running().is_empty() {
            let held = self.store.renew_batches(holder()).await?;
            self.tell(&held);
        }
        let free = AT_ONCE.saturating_sub(self.running().len());
        for held in self.store.claim_batches(holder(), free as u32).await? {
            self.run(held, ask.clone());
        }
        Ok(())
    }

    /// Tells batches that were lost or cancelled.
    fn tell(&self, held: &[HeldBatch]) {
        for ((tenant, id), running) in self.running().iter() {
            match held.iter().find(|held| held.tenant == *tenant && held.batch_id == *id) {
                Some(held) if held.epoch == running.epoch => {
                    if held.status == BatchStatus::Cancelling {
                        running.signals.cancelled.cancel();
                    }
                }
                // One that ended just now is not among them either, and no longer listens.
                _ => running.signals.gone.cancel(),
            }
        }
    }

    fn run(self: &Arc<Self>, held: HeldBatch, ask: Arc<dyn Ask>) {
        let (batcher, signals, key) = (self.clone(), Signals::default(), (held.tenant.clone(), held.batch_id.clone()));
        self.running().insert(key.clone(), Running { epoch: held.epoch, signals: signals.clone() });
        self.tasks.spawn(async move {
            let result = batcher.work(&held, signals, ask).await;
            batcher.running().remove(&key);
            let Err(error) = result else {
                // There may be room for the next.
                batcher.look.notify_one();
                return;
            };
            if error.code() == Code::Aborted {
                tracing::info!(batch = held.batch_id, "the batch is another process's now");
                return;
            }
            if error.code() != Code::Cancelled {
                tracing::warn!(batch = held.batch_id, error = ?error, "a batch broke off: it goes on later");
            }
            if let Err(error) = batcher.store.release_batch(&held).await {
                tracing::warn!(batch = held.batch_id, error = ?error, "the batch could not be given up: its lease has to run out");
            }
        });
    }

    async fn work(self: &Arc<Self>, held: &HeldBatch, signals: Signals, ask: Arc<dyn Ask>) -> Result<()> {
        let (batch, author) = self.store.batch_and_author(&held.tenant, &held.batch_id, "").await?;
        Job { batcher: self.clone(), held: held.clone(), cx: author::as_made(&author), author, signals, ask }.run(batch).await
    }
}
