//! The runtime over a real store in a file, with a model and tools whose words are fixed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod agents;
mod approvals;
mod beside;
mod budgets;
mod clients;
mod context;
mod crash;
mod doubles;
mod faults;
mod file_search;
mod fold;
mod leases;
mod limits;
mod moderation;
mod policies;
mod provenance;
mod servers;
mod sessions;
mod shields;
mod stages;
mod together;
mod tools;
mod watch;
mod world;
