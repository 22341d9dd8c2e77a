//! One upstream: what it has under way, whether it is to be asked, and what became of what it was asked.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indexmap::IndexMap;
use tokio::time::{Instant, timeout};

use llama_stack_core::{Code, Error, Inference, Result};
use llama_stack_proto::v1::Model;

use super::breaker::{self, Breaker, Permit, Turned};
use crate::catalogue::all_models;

/// Who says "later" is left alone no longer than this.
const LONGEST_PASS: Duration = Duration::from_secs(30);

pub(super) struct Upstream {
    pub(super) id: String,
    pub(super) weight: f64,
    pub(super) inference: Arc<dyn Inference>,
    /// Probes in a row that have to fail before it is the last choice.
    probes: u32,
    standing: Mutex<Standing>,
    pub(super) counts: Counts,
}

struct Standing {
    breaker: Breaker,
    outstanding: u32,
    /// It said "later": until then it is asked only if nobody else can be.
    pass_until: Option<Instant>,
    /// In a row.
    failed_probes: u32,
    /// By id, as it has listed them last.
    models: Option<Arc<IndexMap<String, Model>>>,
}

/// Since the start.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Answered with "later".
    pub(super) refused: AtomicU64,
}

/// How an upstream stands at an instant.
pub(super) struct Now {
    pub(super) state: &'static str,
    pub(super) outstanding: u32,
    /// Its last probes were answered.
    pub(super) healthy: bool,
    /// The breaker lets a request in.
    pub(super) admits: bool,
    /// It is healthy and has not said "later".
    pub(super) sound: bool,
    /// When the breaker lets the next in.
    pub(super) opens_at: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(id: String, weight: f64, inference: Arc<dyn Inference>, limits: breaker::Limits, probes: u32) -> Self {
        let breaker = Breaker::new(limits);
        let standing = Standing { breaker, outstanding: 0, pass_until: None, failed_probes: 0, models: None };
        Self { id, weight, inference, probes: probes.max(1), standing: Mutex::new(standing), counts: Counts::default() }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self, now: Instant) -> Now {
        let standing = self.standing();
        let healthy = standing.failed_probes < self.probes;
        Now {
            state: standing.breaker.name(),
            outstanding: standing.outstanding,
            healthy,
            admits: standing.breaker.admits(now),
            sound: healthy && standing.pass_until.is_none_or(|until| now >= until),
            opens_at: standing.breaker.opens_at(),
        }
    }

    /// Whether it has the model, as far as is known.
    pub(super) fn may_have(&self, model: &str) -> bool {
        self.standing().models.as_ref().is_none_or(|models| models.contains_key(model))
    }

    pub(super) fn models(&self) -> Option<Arc<IndexMap<String, Model>>> {
        self.standing().models.clone()
    }

    /// Lets a request in; `None` where the breaker does not, any more.
    pub(super) fn ask(self: &Arc<Self>, now: Instant) -> Option<Asked> {
        let mut standing = self.standing();
        let permit = standing.breaker.take(now)?;
        standing.outstanding += 1;
        Some(Asked { upstream: self.clone(), permit, told: false })
    }

    /// Asks for its models, which is the cheapest thing that shows whether it answers.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub(super) async fn probe(&self, patience: Duration) -> Result<()> {
        let late = |_| Error::unavailable(format!("upstream {:?} did not list its models within {patience:?}", self.id));
        let listed = timeout(patience, all_models(self.inference.as_ref())).await.map_err(late).and_then(|listed| listed);
        let mut standing = self.standing();
        let before = standing.failed_probes < self.probes;
        let result = match listed {
            Ok(models) => {
                standing.models = Some(Arc::new(models));
                standing.failed_probes = 0;
                Ok(())
            }
            // It answers, and has no lists.
            Err(error) if error.code() == Code::Unimplemented => {
                standing.failed_probes = 0;
                Ok(())
            }
            Err(error) => {
                standing.failed_probes = standing.failed_probes.saturating_add(1);
                Err(error)
            }
        };
        match (before, standing.failed_probes < self.probes, &result) {
            (true, false, Err(error)) => tracing::warn!(upstream = self.id, error = error.message(), "an upstream is unhealthy"),
            (false, true, _) => tracing::info!(upstream = self.id, "an upstream is healthy again"),
            _ => {}
        }
        result
    }
}

/// What an answer says of the upstream that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works: what is wrong is the request.
    Fine,
    /// It does not have the model.
    Absent,
    /// It works, and has too much to do.
    Busy,
    /// It does not work. `again`: nothing in the request can be the cause, so another upstream may be asked.
    Broken { again: bool },
    /// Nothing: the caller has gone, or their time is over.
    Silent,
}

impl Verdict {
    pub(super) fn of(error: &Error) -> Self {
        match (error.code(), error.reason()) {
            (Code::NotFound, Some("model_not_found")) => Self::Absent,
            (Code::ResourceExhausted, _) => Self::Busy,
            (Code::Unavailable, Some("overloaded")) => Self::Busy,
            (Code::Unavailable, _) | (Code::DeadlineExceeded, Some("upstream_timeout")) => Self::Broken { again: true },
            // Its configuration here is wrong, which no request can help.
            (Code::FailedPrecondition, Some("upstream_unauthorized" | "upstream_redirect")) => Self::Broken { again: true },
            // A request that breaks one would go on to break all.
            (Code::Internal | Code::DataLoss, _) => Self::Broken { again: false },
            (Code::Cancelled | Code::DeadlineExceeded, _) => Self::Silent,
            _ => Self::Fine,
        }
    }

    /// Whether another upstream may have an answer.
    pub(super) fn elsewhere(self) -> bool {
        matches!(self, Self::Absent | Self::Busy | Self::Broken { again: true })
    }
}

/// A request that is under way at an upstream, from its first byte to the last of its answer.
pub(super) struct Asked {
    pub(super) upstream: Arc<Upstream>,
    permit: Permit,
    told: bool,
}

impl Asked {
    /// The first of its answer is there: a trial has shown what it was for.
    pub(super) fn began(&mut self) {
        if self.permit == Permit::Trial {
            let turned = self.upstream.standing().breaker.succeeded(Permit::Trial);
            self.permit = Permit::Usual;
            self.report(turned);
        }
    }

    /// Its answer is there to the end.
    pub(super) fn answered(mut self) {
        self.told = true;
        self.upstream.counts.answered.fetch_add(1, Ordering::Relaxed);
        let turned = self.upstream.standing().breaker.succeeded(self.permit);
        self.report(turned);
    }

    /// It came to nothing, or to no end.
    pub(super) fn failed(mut self, model: &str, error: &Error) -> Verdict {
        self.told = true;
        let (verdict, now) = (Verdict::of(error), Instant::now());
        let (counts, mut standing) = (&self.upstream.counts, self.upstream.standing());
        let turned = match verdict {
            Verdict::Fine => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                standing.breaker.succeeded(self.permit)
            }
            Verdict::Busy => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                standing.pass_until = error.retry_after().map(|after| now + after.min(LONGEST_PASS));
                standing.breaker.succeeded(self.permit)
            }
            Verdict::Broken { .. } => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                standing.breaker.failed(self.permit, now)
            }
            Verdict::Absent => {
                if let Some(models) = &mut standing.models {
                    Arc::make_mut(models).shift_remove(model);
                }
                standing.breaker.succeeded(self.permit)
            }
            Verdict::Silent => {
                standing.breaker.given_up(self.permit, now);
                None
            }
        };
        drop(standing);
        self.report(turned);
        verdict
    }

    fn report(&self, turned: Option<Turned>) {
        let upstream = &self.upstream.id;
        match turned {
            Some(Turned::Opened(time)) => tracing::warn!(upstream, seconds = time.as_secs_f64(), "an upstream fails and is left alone"),
            Some(Turned::Closed) => tracing::info!(upstream, "an upstream works again"),
            None => {}
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut standing = self.upstream.standing();
        standing.outstanding = standing.outstanding.saturating_sub(1);
        if !self.told {
            standing.breaker.given_up(self.permit, Instant::now());
        }
    }
}
