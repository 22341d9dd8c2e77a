//! Qdrant's engine in this process: vectors and words of banks, without a server.
//!
//! ```text
//! EdgeIndex ── bank → Shard (opened when it is asked for, the least used closed again)
//!                       ├─ searches: any thread, at once
//!                       └─ owner: one thread for all changes
//!                            journal (synced) → engine → acknowledged
//!                            └─ index built beside it, by thresholds
//! ```
//!
//! The engine is pinned: what the adapter shields was read in that version's source, and is said where it is shielded.

mod config;
mod directory;
mod engine;
mod index;
mod shard;

pub use config::{Config, Quantization};
pub use index::EdgeIndex;
