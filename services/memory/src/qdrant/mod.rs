//! What Qdrant's two forms share, the embedded one and the server: how a chunk is a point, how a filter is a condition, and
//! how the two parts of a hybrid search become one list. So both give the same results.
//!
//! ```text
//! chunk ─ point ──┬─ EdgeIndex (services/engines/qdrant-edge): in this process
//! filter ─ condition ─┤
//! hits ─ fusion ──┴─ QdrantIndex: a server or a cluster, by gRPC
//! ```

pub mod condition;
pub mod fusion;
pub mod order;
pub mod plan;
pub mod point;
pub mod remote;
