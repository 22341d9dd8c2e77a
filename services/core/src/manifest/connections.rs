use serde::Deserialize;

use super::Lines;
use crate::Result;

/// What a connection may take, so that slow and silent peers cost others nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// At once. For one more, that which has asked nothing for longest ends; where each is busy, the new one is closed. Default
    /// 16,384, or what the limit of open files leaves.
    pub max: usize,
    /// Of them from one address (with IPv6, one /64); one more is closed at once. Of one of `trusted_proxies`, not its connections are
    /// counted but the requests under way of each address behind it; one more is refused (429). Default: no limit.
    pub per_address: Option<usize>,
    /// Requests at once on one HTTP/2 connection. Default 1,024.
    pub max_streams: u32,
    /// A request's head has this long. Default 10.
    pub head_seconds: u64,
    /// A new connection that asks nothing ends after this. Default 60.
    pub silent_seconds: u64,
    /// A request's body may pause this long, and be late this long where it comes at 1 KiB a second. Beyond: 408,
    /// `DEADLINE_EXCEEDED`. Default 30.
    pub body_seconds: u64,
    /// An answer may lie unread this long. Then it is given up. Default 120.
    pub unread_seconds: u64,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: 16_384,
            per_address: None,
            max_streams: 1_024,
            head_seconds: 10,
            silent_seconds: 60,
            body_seconds: 30,
            unread_seconds: 120,
        }
    }
}

impl Connections {
    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        let counts = [
            ("max", self.max as u64),
            ("per_address", self.per_address.unwrap_or(1) as u64),
            ("max_streams", u64::from(self.max_streams)),
            ("head_seconds", self.head_seconds),
            ("silent_seconds", self.silent_seconds),
            ("body_seconds", self.body_seconds),
            ("unread_seconds", self.unread_seconds),
        ];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((name, _)) => Err(lines.error(&format!("server.connections.{name}"), "must be at least 1")),
            None => Ok(()),
        }
    }
}
