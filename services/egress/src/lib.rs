//! Egress: every connection that a tool opens, guarded.
//!
//! ```text
//! Request ─ Client ─┬─ guard: scheme, host, address literals      (manifest: egress)
//!    ▲              ├─ resolver: guard again, on each address that a name resolves to: what is connected to
//!    │              ├─ body: unpacked here, bytes counted as they come
//!    └── redirect ──┘  each hop from the top
//! ```
//!
//! A model chooses URLs, and what it has read chooses for it. So what counts is the address that is connected to, not
//! the name that was written: a name that resolves to a public address now and to this machine in a moment is refused in a moment.

mod address;
mod body;
mod client;
mod failure;
mod guard;
mod redirect;
mod request;
mod resolver;

pub use client::{Client, Limits};
pub use failure::refusal;
pub use request::{Request, Response};
pub use resolver::{Lookup, SystemDns};

/// The reason of errors that say that something may not be reached.
pub const REFUSED: &str = "egress_refused";
