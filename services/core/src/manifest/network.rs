use std::net::IpAddr;

use serde::Deserialize;

use super::egress::{Place, range};

/// An address, or a range of them: `192.0.2.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    pub first: IpAddr,
    /// How many of its bits count.
    pub bits: u8,
}

/// Where proxies write whom they were asked by: each adds to the end of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeader {
    /// `x-forwarded-for`.
    #[default]
    XForwardedFor,
    /// `forwarded`, of RFC 7239.
    Forwarded,
}

impl Network {
    /// An IPv4 address that is written as an IPv6 one counts as what it is.
    pub fn has(&self, address: IpAddr) -> bool {
        Place::Range { first: self.first, bits: self.bits }.has_address(address)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let place = match text.split_once('/') {
            Some((first, bits)) => range(first, bits),
            None => text.parse().map(Place::one).map_err(|_| "is no address"),
        };
        let why = match place {
            Ok(Place::Range { bits: 0, .. }) => "is everybody",
            Ok(Place::Range { first, bits }) => return Ok(Self { first, bits }),
            Ok(_) => "is no address",
            Err(why) => why,
        };
        Err(format!("{text:?} {why}; it must be an address (192.0.2.7) or a range of them (10.0.0.0/8)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn proxies(text: &str) -> crate::Result<Vec<Network>> {
        let manifest = Manifest::parse(&format!("version: 1\nname: t\nserver:\n  trusted_proxies: [{text}]\n"), "m.yaml");
        manifest.map(|manifest| manifest.server.trusted_proxies)
    }

    #[test]
    fn proxies_are_named_by_address_or_range_and_nobody_is_believed_unasked() {
        let read = proxies("10.0.0.0/8, 192.0.2.7, \"fd00::/8\", \"::1\"").unwrap();
        let has = |address: &str| read.iter().any(|network| network.has(address.parse().unwrap()));
        for address in ["10.255.0.1", "192.0.2.7", "fdff::1", "::1", "::ffff:10.0.0.1"] {
            assert!(has(address), "{address}");
        }
        for address in ["11.0.0.1", "192.0.2.8", "fe80::1", "::2"] {
            assert!(!has(address), "{address}");
        }
        assert!(Manifest::parse("version: 1\nname: t\n", "m.yaml").unwrap().server.trusted_proxies.is_empty());
    }

    #[test]
    fn what_is_no_range_is_refused_with_its_line() {
        for (text, why) in [
            ("proxy.internal", "is no address"),
            ("10.0.0.1/8", "has bits set"),
            ("10.0.0.0/33", "more bits"),
            ("0.0.0.0/0", "is everybody"),
            ("\"::/0\"", "is everybody"),
            ("\"10.0.0.1:80\"", "is no address"),
        ] {
            let error = proxies(text).unwrap_err();
            assert!(error.message().starts_with("m.yaml:4: server.trusted_proxies[0]: "), "{}", error.message());
            assert!(error.message().contains(why) && error.message().contains("10.0.0.0/8"), "{}", error.message());
        }
    }
}
