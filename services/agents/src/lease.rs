//! Owning turns. A turn that runs here is held in the store under a lease, which one task renews for all of them.
//!
//! ```text
//! begin, resume, pick up ─> held ── every third of a lease: renew ──> held
//!                                      ├─ not among the renewed: another has taken it over ─> the run stops, unwritten
//!                                      └─ renewed, but nobody runs it: its run broke ─> given up, to be picked up again
//! ```
//!
//! Leases are told by the processes' own clocks: differences of a few seconds are harmless beside the usual 15 s. A clock that is
//! further behind costs its process its turns, and the work that was under way, but never a journal: each owner writes
//! under an epoch of its own, and the store refuses one that is past.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use llama_stack_core::{Result, ids};
use llama_stack_store::{Held, Holder};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{live::Live, recover, runtime::Shared};

/// As whom this runtime holds turns.
pub(crate) struct Lease {
    owner: String,
    /// How long a turn stays its owner's without a renewal: what a process that dies costs its turns, at most, beside the
    /// time until the next look.
    duration: Duration,
    /// Turns that are held here and run no more, because they would only break again: they are left alone, and can be
    /// cancelled, until the process ends.
    pinned: Mutex<HashSet<Held>>,
    picking_up: AtomicBool,
}

impl Lease {
    pub(crate) fn new(duration: Duration) -> Self {
        Self { owner: ids::new("owner"), duration, pinned: Mutex::default(), picking_up: AtomicBool::new(false) }
    }

    pub(crate) fn holder(&self) -> Holder<'_> {
        Holder { owner: &self.owner, now: ids::now(), lease: self.duration }
    }

    /// Leaves a turn alone as long as this process lives.
    pub(crate) fn pin(&self, held: Held) {
        self.pinned().insert(held);
    }

    fn pinned(&self) -> MutexGuard<'_, HashSet<Held>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Three renewals may fail before a lease runs out.
    fn period(&self) -> Duration {
        self.duration / 3
    }
}

/// Renews until the shutdown, or until the runtime and all that ran in it are gone.
pub(crate) fn keep(shared: &Arc<Shared>) {
    let (period, shutdown, weak) = (shared.lease.period(), shared.parts.shutdown.clone(), Arc::downgrade(shared));
    shared.parts.tasks.spawn(async move {
        let mut keeper = Keeper { until: Instant::now() + 3 * period, suspects: HashSet::new() };
        while let Some((shared, last)) = next(&weak, period, &shutdown).await {
            // Once more at the shutdown: what is under way has longer to end than a lease may have left.
            keeper.renew(&shared).await;
            if last {
                break;
            }
        }
    });
}

/// Looks for turns whose owners are gone, for as long as [`keep`]. Only the first call begins that.
pub(crate) fn pick_up(shared: &Arc<Shared>) {
    if shared.lease.picking_up.swap(true, Ordering::Relaxed) {
        return;
    }
    let (period, shutdown, weak) = (shared.lease.period(), shared.parts.shutdown.clone(), Arc::downgrade(shared));
    shared.parts.tasks.spawn(async move {
        while let Some((shared, false)) = next(&weak, period, &shutdown).await {
            match recover::pick_up(&shared).await {
                Ok(0) => {}
                Ok(turns) => tracing::info!(turns, "turns whose owners are gone go on here"),
                Err(error) => tracing::warn!(error = ?error, "turns whose owners are gone could not be looked for"),
            }
        }
    });
}

/// Gives up all turns that run here: they stop where they are, and any process may go on with them.
pub(crate) async fn release(shared: &Shared) -> Result<usize> {
    shared.lives.lose_all();
    Ok(shared.parts.store.release_all(&shared.lease.owner).await?.len())
}

/// After a period, or at the shutdown, which is `true`. `None` once the runtime is gone.
async fn next(shared: &Weak<Shared>, period: Duration, shutdown: &CancellationToken) -> Option<(Arc<Shared>, bool)> {
    let last = timeout(period, shutdown.cancelled()).await.is_ok();
    Some((shared.upgrade()?, last))
}

struct Keeper {
    /// When the leases run out that were renewed last.
    until: Instant,
    /// Held, and not running when they were looked at last: they may only just have been claimed.
    suspects: HashSet<Held>,
}

impl Keeper {
    async fn renew(&mut self, shared: &Shared) {
        let (lease, now) = (&shared.lease, Instant::now());
        let held = shared.lives.held();
        // A database that does not answer must not keep this process from noticing that its time is over.
        let patience = self.until.saturating_duration_since(now).max(lease.period());
        match timeout(patience, shared.parts.store.renew(lease.holder())).await {
            Ok(Ok(renewed)) => {
                self.until = now + lease.duration;
                self.compare(shared, held, renewed.into_iter().collect()).await;
            }
            Ok(Err(error)) => tracing::warn!(error = ?error, "leases could not be renewed"),
            Err(_) => tracing::warn!("leases could not be renewed: the database does not answer"),
        }
        if Instant::now() >= self.until {
            // Another may have taken over, and what is under way must not go on in two places.
            shared.lives.lose_all();
        }
    }

    /// `held`: what ran here before the renewal.
    async fn compare(&mut self, shared: &Shared, held: Vec<(Held, Arc<Live>)>, renewed: HashSet<Held>) {
        held.iter().filter(|(held, _)| !renewed.contains(held)).for_each(|(_, live)| live.lose());
        shared.lease.pinned().retain(|pinned| renewed.contains(pinned));
        let idle: HashSet<Held> = {
            let pinned = shared.lease.pinned();
            renewed.into_iter().filter(|held| !shared.lives.runs(held) && !pinned.contains(held)).collect()
        };
        for held in idle.intersection(&self.suspects) {
            match shared.parts.store.release_turn(held).await {
                Ok(()) => tracing::warn!(turn = held.turn_id, "a turn whose run broke off is given up, to be picked up again"),
                Err(error) => tracing::warn!(turn = held.turn_id, error = ?error, "a turn whose run broke off could not be given up"),
            }
        }
        self.suspects = idle;
    }
}
