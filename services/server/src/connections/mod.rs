//! What peers that are slow, silent or many may take.
//!
//! ```text
//! accept ─ Places: one too many of its address? closed ─ room? else the longest idle ends ─ Peer: busy while a request is under way
//! request ── behind a trusted proxy: one too many of its address? 429
//!            Paced: its body comes in time, or 408          Socket: what is written is taken in time, or the connection breaks
//! answer  ── Watched: what is there is read in time, or given up, and its place given back
//! ```

mod answer;
mod body;
mod forwarded;
mod seldom;
mod socket;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::http::HeaderMap;
use tokio_util::sync::CancellationToken;

pub(crate) use answer::Answers;
pub(crate) use body::{Paced, TOO_SLOW, late, late_by_its_words};
pub(crate) use forwarded::Proxies;
pub(crate) use seldom::Seldom;
pub(crate) use socket::Socket;

/// Files that are left for everything but callers' connections.
const OTHER_FILES: u64 = 512;

/// The connections of one listener.
pub(crate) struct Places {
    max: usize,
    per_address: Option<usize>,
    proxies: Proxies,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    count: usize,
    /// Those that nothing is asked on, the longest idle first.
    idle: BTreeMap<u64, CancellationToken>,
    next: u64,
    /// How many each network has, where that is limited: connections, and requests that proxies pass on.
    networks: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are busy.
    Max,
    PerAddress,
}

impl Full {
    /// As the manifest names the limit.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::PerAddress => "per_address",
        }
    }
}

/// Where a request came from: a proxy, where there is one that is not trusted. In the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// In the extensions of a request that a proxy passes on, whose caller has this many under way, which is the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowded(pub(crate) usize);

/// One connection. Dropping it gives its place back.
pub(crate) struct Peer {
    places: Arc<Places>,
    address: IpAddr,
    /// Of which it is counted as one.
    network: Option<IpAddr>,
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
pub(crate) struct Busy {
    peer: Arc<Peer>,
    /// Of which it is counted as one: of whoever is behind a proxy.
    network: Option<IpAddr>,
}

impl Places {
    /// `max`, or fewer where this process may not open as many files.
    pub(crate) fn new(max: usize, per_address: Option<usize>, proxies: Proxies) -> Arc<Self> {
        let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        let room = files.saturating_sub(OTHER_FILES).max(files / 2);
        let max = max.min(usize::try_from(room).unwrap_or(usize::MAX));
        Arc::new(Self { max, per_address, proxies, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection from there.
    ///
    /// # Errors
    /// Which limit leaves none.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Arc<Peer>, Full> {
        // A trusted proxy has one for whoever is behind it.
        let most = self.per_address.filter(|_| !self.proxies.trust(address));
        let (ending, network) = (CancellationToken::new(), most.map(|_| network(address)));
        let idle = {
            let mut kept = self.kept();
            // First: who has too many must not end another's.
            if let (Some(most), Some(network)) = (most, network)
                && kept.count_of(network) >= most
            {
                return Err(Full::PerAddress);
            }
            if kept.count >= self.max {
                let Some((_, longest)) = kept.idle.pop_first() else { return Err(Full::Max) };
                longest.cancel();
            }
            if let Some(network) = network {
                *kept.networks.entry(network).or_default() += 1;
            }
            kept.count += 1;
            kept.rest(&ending)
        };
        let state = Mutex::new(State { busy: 0, idle: Some(idle) });
        Ok(Arc::new(Peer { places: self.clone(), address, network, state, ending }))
    }
}

impl Kept {
    fn rest(&mut self, ending: &CancellationToken) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, ending.clone());
        self.next
    }

    fn count_of(&self, network: IpAddr) -> usize {
        self.networks.get(&network).copied().unwrap_or_default()
    }

    fn leave(&mut self, network: Option<IpAddr>) {
        let Some(network) = network else { return };
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
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
        Busy { peer: self.clone(), network: None }
    }
}

impl Busy {
    /// Whom the request is from, and perhaps that they have too many.
    pub(crate) fn of(&mut self, headers: &HeaderMap) -> (PeerAddress, Option<Crowded>) {
        let Peer { places, address: connected, .. } = self.peer.as_ref();
        let address = places.proxies.caller(*connected, headers);
        let Some(most) = places.per_address.filter(|_| address != *connected) else { return (PeerAddress(address), None) };
        let (network, mut kept) = (network(address), places.kept());
        if kept.count_of(network) >= most {
            return (PeerAddress(address), Some(Crowded(most)));
        }
        *kept.networks.entry(network).or_default() += 1;
        drop(kept);
        self.network = Some(network);
        (PeerAddress(address), None)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.network.is_some() {
            self.peer.places.kept().leave(self.network);
        }
        let mut state = self.peer.state();
        state.busy -= 1;
        if state.busy == 0 {
            state.idle = Some(self.peer.places.kept().rest(&self.peer.ending));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let idle = self.state().idle;
        let mut kept = self.places.kept();
        kept.count -= 1;
        kept.leave(self.network);
        if let Some(idle) = idle {
            kept.idle.remove(&idle);
        }
    }
}

/// Whose an address is. Of IPv6 the first half: the other is its owner's to choose.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
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
    use llama_stack_core::manifest::ProxyHeader;

    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn one_more_ends_the_one_that_was_idle_longest() {
        let places = Places::new(2, None, Proxies::default());
        let (first, second) = (places.enter(HERE).unwrap(), places.enter(HERE).unwrap());
        // The first has been asked, so the second is idle longer.
        drop(first.begin());
        let third = places.enter(HERE).unwrap();
        assert_eq!([&first, &second, &third].map(|peer| peer.ending.is_cancelled()), [false, true, false]);
    }

    #[test]
    fn where_all_are_busy_the_new_one_is_refused() {
        let places = Places::new(1, None, Proxies::default());
        let peer = places.enter(HERE).unwrap();
        let (one, two) = (peer.begin(), peer.begin());
        drop(one);
        assert!(places.enter(HERE).is_err() && !peer.ending.is_cancelled());
        drop(two);
        assert!(places.enter(HERE).is_ok() && peer.ending.is_cancelled());
    }

    #[test]
    fn a_place_is_given_back() {
        let places = Places::new(1, None, Proxies::default());
        let peer = places.enter(HERE).unwrap();
        let busy = peer.begin();
        drop(peer);
        assert!(places.enter(HERE).is_err(), "an answer is still under way");
        drop(busy);
        let next = places.enter(HERE).unwrap();
        assert!(!next.ending.is_cancelled() && places.kept().count == 1 && places.kept().idle.len() == 1);
    }

    #[test]
    fn one_address_has_so_many_and_costs_others_nothing() {
        let (places, there) = (Places::new(3, Some(2), Proxies::default()), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        let (one, two) = (places.enter(HERE).unwrap(), places.enter(HERE).unwrap());
        let other = places.enter(there).unwrap();
        assert_eq!(places.enter(HERE).err(), Some(Full::PerAddress));
        assert_eq!([&one, &two, &other].map(|peer| peer.ending.is_cancelled()), [false; 3], "none makes room for it");
        drop(one);
        assert!(places.enter(HERE).is_ok(), "a place was not given back");
        drop((two, other));
        assert!(places.kept().networks.is_empty());
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        let (places, from) = (Places::new(9, Some(1), Proxies::default()), |text: &str| text.parse::<IpAddr>().unwrap());
        let _one = places.enter(from("2001:db8::1")).unwrap();
        assert_eq!(places.enter(from("2001:db8::2:3")).err(), Some(Full::PerAddress));
        assert!(places.enter(from("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn behind_a_trusted_proxy_each_address_has_so_many_requests() {
        let proxies = Proxies(vec!["127.0.0.0/8".to_owned().try_into().unwrap()], ProxyHeader::default());
        let places = Places::new(9, Some(1), proxies);
        let (one, two) = (places.enter(HERE).unwrap(), places.enter(HERE).unwrap());
        let from = |busy: &mut Busy, address: &str| {
            busy.of(&HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), address.parse().unwrap())]))
        };
        let (mut first, mut second, mut other) = (one.begin(), two.begin(), two.begin());
        let (address, crowded) = from(&mut first, "192.0.2.1");
        assert_eq!((address.0.to_string(), crowded), ("192.0.2.1".to_owned(), None));
        assert_eq!(from(&mut second, "192.0.2.1").1, Some(Crowded(1)));
        assert_eq!(from(&mut other, "192.0.2.2").1, None, "another is not held up");
        drop(first);
        assert_eq!(from(&mut second, "192.0.2.1").1, None, "a place was not given back");
        drop((second, other));
        assert!(places.kept().networks.is_empty());
    }
}
