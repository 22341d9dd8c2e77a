//! As whom this process inserts documents, so that of several that share a database one goes on with what another's end
//! cut off, and none with what another is at.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use llama_stack_core::{Result, ids};
use llama_stack_store::{Holder, Store};
use tokio::{sync::Mutex, time::Instant};

use super::Banks;

/// How long a process that says nothing is taken to live.
const LEASE: Duration = Duration::from_secs(15);
/// Between two renewals, and two looks for what others left.
const PERIOD: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    owner: String,
    /// When the lease was renewed last.
    renewed: Mutex<Option<Instant>>,
    /// How much is under way: nothing is renewed for nothing.
    busy: Arc<AtomicUsize>,
}

/// Something is under way as long as this is there.
pub(super) struct Busy(Arc<AtomicUsize>);

impl Default for Worker {
    fn default() -> Self {
        Self { owner: ids::new("worker"), renewed: Mutex::default(), busy: Arc::default() }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Worker {
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) fn holder(&self) -> Holder<'_> {
        Holder { owner: &self.owner, now: ids::now(), lease: LEASE }
    }

    /// No task of this process is at any document.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }

    /// Nor has anything begun since, but for what holds one [`Busy`] itself.
    pub(super) fn is_alone(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 1
    }

    /// Before the first row is written that names this worker: others know that it lives, and will until it is done.
    pub(super) async fn begin(&self, store: &Store) -> Result<Busy> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        let busy = Busy(self.busy.clone());
        let mut renewed = self.renewed.lock().await;
        if renewed.is_none_or(|at| at.elapsed() >= PERIOD) {
            store.renew_worker(self.holder()).await?;
            *renewed = Some(Instant::now());
        }
        Ok(busy)
    }

    async fn renew(&self, store: &Store) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let mut renewed = self.renewed.lock().await;
        store.renew_worker(self.holder()).await?;
        *renewed = Some(Instant::now());
        Ok(())
    }
}

impl Banks {
    /// Renews, and goes on with what others left, until the stack shuts down: then what is left here is anybody's.
    pub(super) fn keep_worker(&self) {
        let banks = self.clone();
        self.tasks.spawn(async move {
            while banks.shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
                if let Err(error) = banks.0.worker.renew(&banks.store).await {
                    tracing::warn!(provider = banks.provider_id, error = ?error, "the lease of insertions is not renewed");
                }
                if let Err(error) = banks.resume().await {
                    tracing::warn!(provider = banks.provider_id, error = ?error, "insertions that were cut off could not be looked for");
                }
            }
            if let Err(error) = banks.store.release_worker(banks.0.worker.owner()).await {
                tracing::debug!(error = ?error, "the lease of insertions has to run out");
            }
        });
    }
}
