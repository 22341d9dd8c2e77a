//! Promises of the service traits: one async fn each, for every implementation, in process and over a socket.

pub mod agents;
pub mod inference;
pub mod local;
pub mod memory;
pub mod tools;
