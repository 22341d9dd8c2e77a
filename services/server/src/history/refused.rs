//! Refused credentials: a few rows for each address and minute, and how many more there were, so that a flood of them fills no disk.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::connections::network;

/// Rows of one address in a minute.
const OF_ONE: u32 = 10;
/// Rows of all addresses in a minute, and how many addresses are told apart in it.
const OF_ALL: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// A minute, which begins with the first that is refused in it.
#[derive(Default)]
pub(super) struct Refused {
    since: Option<Instant>,
    written: usize,
    seen: HashMap<IpAddr, Seen>,
    /// Of addresses that had no room.
    others: u64,
}

#[derive(Default)]
struct Seen {
    written: u32,
    dropped: u64,
}

impl Refused {
    /// Whether one more has its own row; else it is counted.
    pub(super) fn takes(&mut self, address: IpAddr, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let address = network(address);
        if self.seen.len() >= OF_ALL && !self.seen.contains_key(&address) {
            self.others += 1;
            return false;
        }
        let seen = self.seen.entry(address).or_default();
        if seen.written >= OF_ONE || self.written >= OF_ALL {
            seen.dropped += 1;
            return false;
        }
        seen.written += 1;
        self.written += 1;
        true
    }

    /// How many had no row, and from where (empty: from many places), once the minute is over or `at_once`.
    pub(super) fn end(&mut self, now: Instant, at_once: bool) -> Vec<(String, u64)> {
        let is_over = self.since.is_some_and(|since| at_once || now.saturating_duration_since(since) >= MINUTE);
        if !is_over {
            return Vec::new();
        }
        let over = std::mem::take(self);
        let dropped = over.seen.into_iter().filter(|(_, seen)| seen.dropped > 0);
        let dropped = dropped.map(|(address, seen)| (shown(address), seen.dropped));
        dropped.chain((over.others > 0).then_some((String::new(), over.others))).collect()
    }
}

fn shown(network: IpAddr) -> String {
    match network {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn a_flood_from_one_place_is_a_few_rows_and_a_count() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let rows = (0..1_000).filter(|_| refused.takes(one, now)).count();
        assert_eq!(rows, 10);
        assert!(refused.takes("192.0.2.2".parse().unwrap(), now), "another is not drowned");
        assert!(refused.end(now + Duration::from_secs(59), false).is_empty());
        assert_eq!(refused.end(now + MINUTE, false), [("192.0.2.1".to_owned(), 990)]);
        assert!(refused.takes(one, now + MINUTE), "a minute later there is room again");
        assert!(refused.end(now + MINUTE, true).is_empty(), "none was left out");
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_too() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let from = |n: u32| IpAddr::from(n.to_be_bytes());
        assert_eq!((0..5_000).filter(|n| refused.takes(from(*n), now)).count(), 100);
        assert!(!refused.takes(from(0), now));
        let mut dropped = refused.end(now, true);
        dropped.sort();
        assert_eq!(dropped, [(String::new(), 4_900), ("0.0.0.0".to_owned(), 1)]);
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        let from = |n: u128| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) | n));
        assert_eq!((0..50).filter(|n| refused.takes(from(*n), now)).count(), 10);
        assert_eq!(refused.end(now, true), [("2001:db8::/64".to_owned(), 40)]);
    }
}
