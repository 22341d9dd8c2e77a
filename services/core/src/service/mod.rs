//! The service traits. Each method is the RPC of the same name: `proto/` says what it promises.
//!
//! A method that a provider does not have answers `Unimplemented`; that is the default of all but the essential ones.

mod agents;
mod batches;
mod files;
mod identity;
mod inference;
mod memory;
mod prompts;
mod safety;
mod stack;
mod telemetry;
mod tools;

pub use agents::Agents;
pub use batches::Batches;
pub use files::Files;
pub use identity::Identity;
pub use inference::{Inference, no_such_model};
pub use memory::Memory;
pub use prompts::Prompts;
pub use safety::Safety;
pub use stack::Stack;
pub use telemetry::Telemetry;
pub use tools::Tools;
