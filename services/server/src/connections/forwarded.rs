//! Whom a request is from where proxies stand between: the last address that is none of theirs.
//!
//! ```text
//! x-forwarded-for: made up, 203.0.113.9, 10.0.0.2      from 10.0.0.1
//!                           ^ the caller │ └─────────── trusted ──┘
//! ```
//!
//! Each proxy adds whom it was asked by at the end, so what a caller wrote itself stands before that and is never reached.

use std::net::{IpAddr, SocketAddr};

use ::http::HeaderMap;
use llama_stack_core::manifest::{Network, ProxyHeader};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

/// Those whose word counts, and where they write it. The other header may be the caller's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(pub(crate) Vec<Network>, pub(crate) ProxyHeader);

impl Proxies {
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }

    /// The caller behind a connection, as far as it is known.
    pub(crate) fn caller(&self, connected: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trust(connected) {
            return connected;
        }
        let listed =
            |name: &str| headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).rev().map(str_of);
        match self.1 {
            ProxyHeader::XForwardedFor => self.last(connected, listed(X_FORWARDED_FOR).map(|text| address(text?))),
            ProxyHeader::Forwarded => self.last(connected, listed(FORWARDED).map(|text| named_for(text?))),
        }
    }

    /// Of addresses, the latest first. What is none, as `unknown`, hides all before it.
    fn last(&self, connected: IpAddr, addresses: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut caller = connected;
        for address in addresses {
            let Some(address) = address else { break };
            caller = address;
            if !self.trust(address) {
                break;
            }
        }
        caller
    }
}

fn str_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().map(str::trim)
}

/// Of `for=192.0.2.60;proto=https;by=…` (RFC 7239).
fn named_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(node.trim().trim_matches('"'))
}

/// With a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(connected: &str, header: ProxyHeader, headers: &[(&'static str, &str)]) -> String {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|range| Network::try_from(range.to_owned()).unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Proxies(proxies.to_vec(), header).caller(connected.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_callers() {
        let of = |list: &str| caller("10.0.0.1", ProxyHeader::XForwardedFor, &[("x-forwarded-for", list)]);
        for (list, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
            ("6.6.6.6,203.0.113.9, 10.0.0.2 ,10.0.0.3", "203.0.113.9"),
            ("10.9.9.9, 10.0.0.2", "10.9.9.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::7]:4711, fd00::2", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
            ("unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(of(list), expected, "{list}");
        }
        let twice = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9, 10.0.0.2")];
        assert_eq!(caller("10.0.0.1", ProxyHeader::XForwardedFor, &twice), "203.0.113.9", "lines are one list");
    }

    #[test]
    fn forwarded_is_read_as_its_standard_writes_it() {
        let of = |list: &str| caller("10.0.0.1", ProxyHeader::Forwarded, &[("forwarded", list)]);
        assert_eq!(of("for=6.6.6.6, For=203.0.113.9;proto=https;by=10.0.0.1"), "203.0.113.9");
        assert_eq!(of("proto=https;for=\"[2001:db8::7]:4711\", for=10.0.0.2"), "2001:db8::7");
        assert_eq!((of("for=_hidden"), of("proto=https")), ("10.0.0.1".to_owned(), "10.0.0.1".to_owned()));
    }

    #[test]
    fn nobody_else_says_where_they_are() {
        let both = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=203.0.113.9")];
        for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
            assert_eq!(caller("203.0.113.1", header, &both), "203.0.113.1");
            assert_eq!(caller("10.0.0.1", header, &[]), "10.0.0.1");
        }
        // The proxy writes one of the two, and its caller may have made up the other.
        assert_eq!(caller("10.0.0.1", ProxyHeader::XForwardedFor, &both), "6.6.6.6");
        assert_eq!(caller("10.0.0.1", ProxyHeader::Forwarded, &both), "203.0.113.9");
    }
}
