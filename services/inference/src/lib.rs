//! Inference: everything that runs a model, behind one router.
//!
//! ```text
//! ChatRequest ─ validate ─ Router ── catalogue: model id → provider ─┬─ an engine in this process
//!               (once for            (lists are cached, and read     ├─ remote::openai   HTTP, any OpenAI-compatible server
//!                all providers)       again when an id is unknown)   ├─ remote::grpc     another stack, or anybody's server
//!                                                                    ├─ remote::pool     several of the two above, as one
//!                                                                    └─ inline::local    the engine that suits a model
//! ```

mod answers;
mod catalogue;
mod grpc;
pub mod local;
mod openai;
mod pool;
mod router;
mod validate;

use llama_stack_core::Registry;

#[doc(hidden)]
pub use openai::fuzz;
pub use pool::{PoolFigures, Pools, UpstreamFigures};
pub use router::Router;

/// The provider types of this crate.
pub fn register(registry: &mut Registry) {
    registry.inference.add("remote::openai", openai::build);
    registry.inference.add("remote::grpc", grpc::build);
    let upstreams = registry.inference.clone();
    registry.inference.add("remote::pool", move |config, deps| pool::build(config, deps, upstreams.clone()));
}
