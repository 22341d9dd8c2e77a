//! `egress:` where tools may connect to, beyond the public internet and short of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::Deserialize;
use url::{Host, Url};

/// Without it, tools reach every public address and nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// What tools may reach though it is not public. What a name resolves to is allowed with the name.
    pub allow: Vec<Destination>,
    /// What no tool may reach. It goes before `allow`.
    pub deny: Vec<Destination>,
    /// Whether public addresses may be reached that `allow` does not name. Default true.
    pub public: bool,
    /// The ports of public addresses. Empty: all. What `allow` names is not bound by it.
    pub ports: Vec<u16>,
}

impl Default for Egress {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), public: true, ports: Vec::new() }
    }
}

impl Egress {
    /// With the server of `url` allowed: whoever wrote the manifest named it there.
    #[must_use]
    pub fn with_server(mut self, url: &Url) -> Self {
        let place = match url.host() {
            Some(Host::Domain(name)) => Place::Name(without_dot(name).to_owned()),
            Some(Host::Ipv4(address)) => Place::one(address.into()),
            Some(Host::Ipv6(address)) => Place::one(address.into()),
            None => return self,
        };
        self.allow.push(Destination { place, port: url.port_or_known_default() });
        self
    }

    /// The ports that any rule tells from others.
    pub fn named_ports(&self) -> impl Iterator<Item = u16> {
        self.allow.iter().chain(&self.deny).filter_map(|rule| rule.port).chain(self.ports.iter().copied())
    }
}

/// `10.1.0.0/16`, `127.0.0.1:8000`, `[fd00::/8]:443`, `search.internal`, `*.example.com:8443`. Without a port: all ports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Destination {
    pub place: Place,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host, in lower case and ASCII.
    Name(String),
    /// Every name below this one, which is not meant itself.
    Below(String),
    /// The addresses whose first `bits` are those of `first`.
    Range { first: IpAddr, bits: u8 },
}

impl Place {
    pub(super) fn one(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Place::Range { first: address, bits: width(address) }
    }

    /// `name` in lower case, with or without its last dot.
    pub fn has_name(&self, name: &str) -> bool {
        let name = without_dot(name);
        match self {
            Place::Name(this) => this == name,
            Place::Below(this) => name.strip_suffix(this.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Place::Range { .. } => false,
        }
    }

    /// An IPv4 address that is written as an IPv6 one counts as what it is.
    pub fn has_address(&self, address: IpAddr) -> bool {
        match self {
            Place::Range { first, bits } => {
                first.is_ipv4() == address.to_canonical().is_ipv4() && masked(address.to_canonical(), *bits) == *first
            }
            _ => false,
        }
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `bits` of an address, the others 0.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} {why}; an egress rule is an address (10.0.0.5), a range (10.1.0.0/16), a host (search.internal) or *.HOST, with :PORT or without"
            )
        };
        let (place, port) = split_port(text).ok_or_else(|| wrong("has a port that is not 1 to 65535"))?;
        let place = match place.split_once('/') {
            Some((first, bits)) => range(first, bits).map_err(wrong)?,
            None => match place.parse::<IpAddr>() {
                Ok(address) => Place::one(address),
                Err(_) => named(place).map_err(wrong)?,
            },
        };
        Ok(Self { place, port })
    }
}

/// What stands before the port, and the port. An IPv6 address has one only in brackets. `None`: it is no port.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (place, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((place, "")) => return Some((place, None)),
        Some((place, rest)) => (place, rest.strip_prefix(':')?),
        None => match text.split_once(':') {
            Some((place, port)) if !port.contains(':') => (place, port),
            _ => return Some((text, None)),
        },
    };
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    Some((place, Some(port)))
}

pub(super) fn range(first: &str, bits: &str) -> Result<Place, &'static str> {
    let first: IpAddr = first.parse().map_err(|_| "does not begin with an address")?;
    let bits: u8 = bits.parse().map_err(|_| "does not say how many bits count")?;
    if bits > width(first) {
        return Err("counts more bits than the address has");
    }
    // A slip of the pen would open or close something else than what was meant.
    if masked(first, bits) != first {
        return Err("has bits set beyond its prefix");
    }
    if first.to_canonical() != first {
        return Err("is an IPv4 range in an IPv6 notation");
    }
    Ok(Place::Range { first, bits })
}

fn named(text: &str) -> Result<Place, &'static str> {
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    // As hosts of URLs are read, so that both are written alike.
    match Host::parse(without_dot(name)) {
        Ok(Host::Domain(name)) if !name.contains('*') && !name.is_empty() => Ok(if below { Place::Below(name) } else { Place::Name(name) }),
        _ => Err("names no host"),
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Name(name) => name.clone(),
            Place::Below(name) => format!("*.{name}"),
            Place::Range { first, bits } => {
                let range = if *bits == width(*first) { first.to_string() } else { format!("{first}/{bits}") };
                if first.is_ipv6() && self.port.is_some() { format!("[{range}]") } else { range }
            }
        };
        match self.port {
            Some(port) => write!(f, "{place}:{port}"),
            None => f.write_str(&place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    #[test]
    fn a_rule_is_written_as_it_was_read() {
        for text in [
            "10.1.0.0/16",
            "127.0.0.1:8000",
            "10.0.0.5",
            "fd00::/8",
            "[fd00::1]:443",
            "[fd00::/8]:443",
            "search.internal",
            "search.internal:8443",
            "*.example.com",
            "*.example.com:80",
            "0.0.0.0/0",
            "::/0",
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        assert_eq!("Bücher.Example.".parse::<Destination>().unwrap().to_string(), "xn--bcher-kva.example");
        assert_eq!("::ffff:10.0.0.5".parse::<Destination>().unwrap().to_string(), "10.0.0.5");
    }

    #[test]
    fn a_rule_that_is_none_says_what_one_is() {
        for text in [
            "",
            "*",
            "*.",
            "a b",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/x",
            "host/8",
            "host:0",
            "host:http",
            "host:70000",
            "http://host",
            "a.*.b",
            "[::1]x",
            "::ffff:10.0.0.0/104",
        ] {
            let error = text.parse::<Destination>().expect_err(text);
            assert!(error.contains("10.1.0.0/16"), "{error}");
        }
    }

    #[test]
    fn a_rule_has_what_it_names_and_nothing_beside() {
        let place = |text: &str| text.parse::<Destination>().unwrap().place;
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(place("10.1.0.0/16").has_address(address("10.1.255.255")) && !place("10.1.0.0/16").has_address(address("10.2.0.0")));
        assert!(place("10.1.0.0/16").has_address(address("::ffff:10.1.2.3")) && !place("0.0.0.0/0").has_address(address("fd00::1")));
        assert!(place("fd00::/8").has_address(address("fdff::1")) && !place("::/0").has_address(address("10.0.0.1")));
        assert!(place("*.example.com").has_name("a.b.example.com.") && place("example.com").has_name("example.com."));
        for other in ["example.com", "badexample.com", ".example.com", "example.com.evil.org"] {
            assert!(!place("*.example.com").has_name(other), "{other}");
        }
    }

    #[test]
    fn the_manifest_says_where_a_rule_is_wrong() {
        let read = |egress: &str| Manifest::parse(&format!("version: 1\nname: t\negress:\n{egress}"), "m.yaml");
        let egress = read("  allow:\n    - 10.1.0.0/16\n    - search.internal:8443\n  deny: [\"*.example.com\"]\n").unwrap().egress;
        assert_eq!((egress.allow.len(), egress.deny.len(), egress.public), (2, 1, true));
        let error = read("  allow:\n    - 10.1.0.0/16\n    - 10.1.0.1/16\n").unwrap_err();
        assert!(error.message().starts_with("m.yaml:6: egress.allow[1]: \"10.1.0.1/16\" has bits set"), "{}", error.message());
        let error = read("  alow: []\n").unwrap_err();
        assert!(error.message().starts_with("m.yaml:4: egress.alow: unknown field"), "{}", error.message());
    }
}
