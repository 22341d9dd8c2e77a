//! Identity: who calls, by what they show, and what they may do.
//!
//! ```text
//! Authorization: Bearer ─┬─ lsk_… ─ ApiKeys ───── store: hashes
//!                        ├─ a.b.c ─ Jwt ────────── issuer's keys, cached
//!                        └─ else ── Introspection ─ authorisation server, cached    ─> Authenticated ─> Context
//! client certificate ────── certificate                                                   │
//!                                          every call of a service ─ Authorizer (Guard) ──┘─ Cedar, deny by default
//! ```

mod authenticator;
mod authorizer;
mod certificate;
mod claims;
mod fetch;
mod introspection;
mod jwks;
mod jwt;
mod keys;
mod secret;
mod service;
mod target;

pub use authenticator::Authenticator;
pub use authorizer::{Authorizer, Decision, OnDecision, Policies};
pub use certificate::from_certificate;
pub use service::ApiKeyBook;
pub use target::kinds;
