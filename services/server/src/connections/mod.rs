//! What peers that are slow, silent or many may take.
//!
//! ```text
//! accept ─ Places: room? else the longest idle ends ─ Peer: busy while a request is under way
//! request ── Paced: its body comes in time, or 408          Socket: what is written is taken in time, or the connection breaks
//! answer  ── Watched: what is there is read in time, or given up, and its place given back
//! ```

mod answer;
mod body;
mod socket;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

pub(crate) use answer::Answers;
pub(crate) use body::{Paced, TOO_SLOW, late, late_by_its_words};
pub(crate) use socket::Socket;

/// Files that are left for everything but callers' connections.
const OTHER_FILES: u64 = 512;

/// The connections of one listener.
pub(crate) struct Places {
    max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    count: usize,
    /// Those that nothing is asked on, the longest idle first.
    idle: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// Where a request's connection came from: a proxy, where there is one. In the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// One connection. Dropping it gives its place back.
pub(crate) struct Peer {
    places: Arc<Places>,
    state: Mutex<State>,
    /// Cancelled where the connection is to end for another's sake.
    pub(crate) ending: CancellationToken,
}

#[derive(Default)]
struct State {
    busy: usize,
    /// Its key among the idle ones.
    idle: Option<u64>,
}

/// A request under way, up to the last byte of its answer.
pub(crate) struct Busy(Arc<Peer>);

impl Places {
    /// `max`, or fewer where this process may not open as many files.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        let room = files.saturating_sub(OTHER_FILES).max(files / 2);
        let max = max.min(usize::try_from(room).unwrap_or(usize::MAX));
        Arc::new(Self { max, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection; none where all are busy.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Arc<Peer>> {
        let ending = CancellationToken::new();
        let idle = {
            let mut kept = self.kept();
            if kept.count >= self.max {
                kept.idle.pop_first()?.1.cancel();
            }
            kept.count += 1;
            kept.rest(&ending)
        };
        Some(Arc::new(Peer { places: self.clone(), state: Mutex::new(State { busy: 0, idle: Some(idle) }), ending }))
    }
}

impl Kept {
    fn rest(&mut self, ending: &CancellationToken) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, ending.clone());
        self.next
    }
}

impl Peer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is asked.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        let mut state = self.state();
        state.busy += 1;
        if let Some(idle) = state.idle.take() {
            self.places.kept().idle.remove(&idle);
        }
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.busy -= 1;
        if state.busy == 0 {
            state.idle = Some(self.0.places.kept().rest(&self.0.ending));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let idle = self.state().idle;
        let mut kept = self.places.kept();
        kept.count -= 1;
        if let Some(idle) = idle {
            kept.idle.remove(&idle);
        }
    }
}

/// Lets this process open as many files as it may, since each connection is one; some systems begin with 1,024.
pub fn raise_open_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_ends_the_one_that_was_idle_longest() {
        let places = Places::new(2);
        let (first, second) = (places.enter().unwrap(), places.enter().unwrap());
        // The first has been asked, so the second is idle longer.
        drop(first.begin());
        let third = places.enter().unwrap();
        assert_eq!([&first, &second, &third].map(|peer| peer.ending.is_cancelled()), [false, true, false]);
    }

    #[test]
    fn where_all_are_busy_the_new_one_is_refused() {
        let places = Places::new(1);
        let peer = places.enter().unwrap();
        let (one, two) = (peer.begin(), peer.begin());
        drop(one);
        assert!(places.enter().is_none() && !peer.ending.is_cancelled());
        drop(two);
        assert!(places.enter().is_some() && peer.ending.is_cancelled());
    }

    #[test]
    fn a_place_is_given_back() {
        let places = Places::new(1);
        let peer = places.enter().unwrap();
        let busy = peer.begin();
        drop(peer);
        assert!(places.enter().is_none(), "an answer is still under way");
        drop(busy);
        let next = places.enter().unwrap();
        assert!(!next.ending.is_cancelled() && places.kept().count == 1 && places.kept().idle.len() == 1);
    }
}
