//! The manifest's rules, asked about one host, address and port.

use std::{fmt, net::IpAddr};

use llama_stack_core::manifest::{Destination, Egress};
use url::{Host, Url};

use crate::address::{carried, special};

/// A port, or `None` for one that no rule names: what holds for one of them holds for all.
pub(crate) type Port = Option<u16>;

pub(crate) struct Guard(pub(crate) Egress);

/// Why something may not be reached. An error, so that it finds its way through the HTTP client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Special { address: IpAddr, what: &'static str },
    Denied { rule: Destination },
    NotAllowed,
    Port,
    Scheme,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Special { address, what } => write!(f, "{address} is {what}"),
            Refused::Denied { rule } => write!(f, "egress.deny in the manifest names it ({rule})"),
            Refused::NotAllowed => f.write_str("public addresses are closed to tools (egress.public in the manifest)"),
            Refused::Port => f.write_str("its port is none of those that tools may use (egress.ports in the manifest)"),
            Refused::Scheme => f.write_str("only http and https are spoken"),
        }
    }
}

impl std::error::Error for Refused {}

impl Guard {
    /// What can be said of a URL before its name is resolved.
    pub(crate) fn url(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused::Scheme);
        }
        let port = url.port_or_known_default();
        match url.host() {
            Some(Host::Domain(name)) => self.name(name, port),
            Some(Host::Ipv4(address)) => self.address(None, address.into(), port),
            Some(Host::Ipv6(address)) => self.address(None, address.into(), port),
            // No URL of these schemes is without.
            None => Err(Refused::Scheme),
        }
    }

    pub(crate) fn name(&self, name: &str, port: Port) -> Result<(), Refused> {
        match rules(&self.0.deny, port).find(|rule| rule.place.has_name(name)) {
            Some(rule) => Err(Refused::Denied { rule: rule.clone() }),
            None => Ok(()),
        }
    }

    /// An address, and the name that resolved to it. It passes where every address that it may lead to does.
    pub(crate) fn address(&self, name: Option<&str>, address: IpAddr, port: Port) -> Result<(), Refused> {
        if let Some(name) = name {
            self.name(name, port)?;
        }
        let address = address.to_canonical();
        let inside = match address {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(address) => carried(address),
        };
        for leads in inside.iter().chain([&address]) {
            if let Some(rule) = rules(&self.0.deny, port).find(|rule| rule.place.has_address(*leads)) {
                return Err(Refused::Denied { rule: rule.clone() });
            }
        }
        let allowed = |address: &IpAddr| rules(&self.0.allow, port).any(|rule| rule.place.has_address(*address));
        let named = name.is_some_and(|name| rules(&self.0.allow, port).any(|rule| rule.place.has_name(name)));
        if named || allowed(&address) || (!inside.is_empty() && inside.iter().all(allowed)) {
            return Ok(());
        }
        for leads in inside.iter().chain([&address]) {
            if let Some(what) = special(*leads).filter(|_| !allowed(leads)) {
                return Err(Refused::Special { address, what });
            }
        }
        if !self.0.public {
            return Err(Refused::NotAllowed);
        }
        if !self.0.ports.is_empty() && !port.is_some_and(|port| self.0.ports.contains(&port)) {
            return Err(Refused::Port);
        }
        Ok(())
    }
}

fn rules(rules: &[Destination], port: Port) -> impl Iterator<Item = &Destination> {
    rules.iter().filter(move |rule| rule.port.is_none() || rule.port == port)
}
