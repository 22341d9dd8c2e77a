//! How the upstreams of a stack's pools are, for whoever shows it.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Shared, upstream::Upstream};

/// The pools of a stack. The server hands it to the providers, which enter themselves.
#[derive(Clone, Default)]
pub struct Pools(Arc<Mutex<Vec<Weak<Shared>>>>);

/// One pool, now.
#[derive(Clone, Debug)]
pub struct PoolFigures {
    /// The provider's id.
    pub pool: String,
    /// Requests that were asked again of another upstream.
    pub retries: u64,
    /// Requests that would have been, were the budget of retries not used up.
    pub over_budget: u64,
    pub upstreams: Vec<UpstreamFigures>,
}

/// One upstream, now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamFigures {
    pub id: String,
    /// Of its circuit breaker: `closed`, `open` or `half_open`.
    pub state: String,
    /// Its last probes were answered.
    pub healthy: bool,
    /// Requests under way.
    pub outstanding: u32,
    /// Requests that it answered, since the start.
    pub answered: u64,
    /// Requests that it failed, since the start.
    pub failed: u64,
    /// Requests that it answered with "later", since the start.
    pub refused: u64,
}

impl UpstreamFigures {
    /// It answers its probes, and its breaker is closed.
    pub fn works(&self) -> bool {
        self.healthy && self.state == "closed"
    }
}

impl Pools {
    pub(super) fn enter(&self, pool: &Arc<Shared>) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    pub fn figures(&self) -> Vec<PoolFigures> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().filter_map(Weak::upgrade).map(|pool| pool.figures()).collect()
    }
}

/// What a pool counts for itself.
#[derive(Default)]
pub(super) struct Counts {
    retries: AtomicU64,
    over_budget: AtomicU64,
}

impl Shared {
    pub(super) fn retried(&self) {
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn over_budget(&self) {
        self.counts.over_budget.fetch_add(1, Ordering::Relaxed);
    }

    fn figures(&self) -> PoolFigures {
        PoolFigures {
            pool: self.id.clone(),
            retries: self.counts.retries.load(Ordering::Relaxed),
            over_budget: self.counts.over_budget.load(Ordering::Relaxed),
            upstreams: self.upstream_figures(|_| true),
        }
    }

    /// Of those that have `model`, as far as is known.
    pub(super) fn figures_of(&self, model: &str) -> Vec<UpstreamFigures> {
        self.upstream_figures(|upstream| upstream.may_have(model))
    }

    fn upstream_figures(&self, wanted: impl Fn(&Upstream) -> bool) -> Vec<UpstreamFigures> {
        let now = Instant::now();
        let figures = |upstream: &Arc<Upstream>| {
            let (standing, count) = (upstream.now(now), |count: &AtomicU64| count.load(Ordering::Relaxed));
            UpstreamFigures {
                id: upstream.id.clone(),
                state: standing.state.into(),
                healthy: standing.healthy,
                outstanding: standing.outstanding,
                answered: count(&upstream.counts.answered),
                failed: count(&upstream.counts.failed),
                refused: count(&upstream.counts.refused),
            }
        };
        self.upstreams.iter().filter(|upstream| wanted(upstream)).map(figures).collect()
    }
}
