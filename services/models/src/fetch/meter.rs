//! Tells how far a file is, not too often, and never backwards.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use llama_stack_core::{Progress, registry::OnProgress};

/// Between two reports.
const PAUSE: Duration = Duration::from_millis(100);

/// Reports one file. The last clone, when it is dropped, reports the end; a meter that nothing moved is silent.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Inner>);

struct Inner {
    item: String,
    on_progress: OnProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    done: u64,
    total: Option<u64>,
    /// Whether the length that a server names is that of the file.
    totals_by_server: bool,
    reported: Option<Instant>,
}

/// For a thread that should stop when nobody waits for the download any more.
pub(crate) struct Alive(Weak<Inner>);

impl Alive {
    /// Reports, and says whether to go on.
    pub(crate) fn at(&self, done: u64) -> bool {
        self.0.upgrade().map(|inner| Meter(inner).at(done)).is_some()
    }
}

impl Meter {
    pub(crate) fn new(item: &str, on_progress: &OnProgress) -> Self {
        Self(Arc::new(Inner { item: item.to_owned(), on_progress: Arc::clone(on_progress), state: Mutex::default() }))
    }

    pub(crate) fn alive(&self) -> Alive {
        Alive(Arc::downgrade(&self.0))
    }

    /// `total` bytes will come.
    pub(crate) fn expect(&self, total: u64) {
        self.change(|state| state.total = Some(total));
    }

    pub(crate) fn totals_by_server(&self) {
        self.change(|state| state.totals_by_server = true);
    }

    /// A server says that the part at hand has so many bytes.
    pub(crate) fn expect_part(&self, total: Option<u64>) {
        self.change(|state| {
            if state.totals_by_server && state.total.is_none() {
                state.total = total;
            }
        });
    }

    /// `done` bytes of the whole file are here.
    pub(crate) fn at(&self, done: u64) {
        let report = self.change(|state| {
            state.done = state.done.max(done);
            let due = state.reported.is_none_or(|at| at.elapsed() >= PAUSE);
            due.then(|| {
                state.reported = Some(Instant::now());
                (state.done, state.total)
            })
        });
        if let Some((done, total)) = report {
            self.0.report(done, total, false);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn report(&self, done: u64, total: Option<u64>, finished: bool) {
        // What pip brings is packed, and is counted as it comes: never more than there is.
        let done = total.map_or(done, |total| done.min(total));
        (self.on_progress)(Progress { item: self.item.clone(), done, total, finished });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.reported.is_some() {
            let (done, total) = (state.done, state.total);
            self.report(done, total, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_never_go_back_and_end_once() {
        let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let kept = Arc::clone(&seen);
        let on_progress: OnProgress = Arc::new(move |progress| kept.lock().unwrap().push(progress));
        let meter = Meter::new("m", &on_progress);
        meter.expect(10);
        meter.at(5);
        meter.at(3);
        let alive = meter.alive();
        assert!(alive.at(10));
        drop(meter);
        assert!(!alive.at(10), "nobody waits any more");
        let seen = seen.lock().unwrap();
        assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done));
        let last = seen.last().unwrap();
        assert_eq!((last.done, last.total, last.finished), (10, Some(10), true));
        assert_eq!(seen.iter().filter(|progress| progress.finished).count(), 1);
    }

    #[test]
    fn what_needs_no_work_is_not_reported() {
        let on_progress: OnProgress = Arc::new(|progress| panic!("{progress:?}"));
        drop(Meter::new("m", &on_progress));
    }
}
