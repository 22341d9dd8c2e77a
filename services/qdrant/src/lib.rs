//! Banks on Qdrant: inside the process, or in a cluster.
//!
//! ```text
//! Banks ── Index ── QdrantIndex ─┬─ Edge    one shard and one owner thread for each bank, in this process
//!            filters, points,    └─ Remote  one collection for each bank, over gRPC
//!            fusion, order
//! ```
//!
//! Both engines are asked in one form (`Engine`): what a filter means and what a point holds is written once, so the two
//! find the same. A bank has a shard or a collection of its own, because banks differ in their dimension, because how rare
//! a word is in one bank must tell nothing about another, and because a bank that is deleted goes as a whole. Tenant and
//! bank stand in every point and in every condition all the same.

use llama_stack_core::Registry;

mod condition;
mod edge;
mod engine;
mod order;
mod point;
mod remote;
mod words;

use engine::{Engine, QdrantIndex};

pub fn register(registry: &mut Registry) {
    registry.memory.add("inline::qdrant-edge", edge::build);
    registry.memory.add("remote::qdrant", remote::build);
}

pub use edge::{Quantization, open as open_edge};
pub use remote::{Config as RemoteConfig, connect as connect_remote};
