//! Every provider type of this build: the light ones, and the engines that were built in.

use llama_stack_core::Registry;
use llama_stack_inference::local::{self, Engines};

pub(crate) fn registry() -> Registry {
    let mut registry = llama_stack_server::registry();
    engines(&mut registry);
    indexes(&mut registry);
    let mut own = Registry::default();
    engines(&mut own);
    let accelerated = cfg!(any(feature = "cuda", feature = "metal"));
    local::register(&mut registry, Engines { table: own.inference, accelerated });
    registry
}

fn engines(registry: &mut Registry) {
    #[cfg(feature = "llama-cpp")]
    llama_stack_engine_llama_cpp::register(registry);
    #[cfg(feature = "mistralrs")]
    llama_stack_engine_mistralrs::register(registry);
    #[cfg(feature = "candle")]
    llama_stack_engine_candle::register(registry);
    registry.inference.missing("inline::llama-cpp", "built without the `llama-cpp` feature");
    registry.inference.missing("inline::mistralrs", "built without the `mistralrs` feature");
    registry.inference.missing("inline::candle", "built without the `candle` feature");
}

fn indexes(registry: &mut Registry) {
    #[cfg(feature = "qdrant")]
    llama_stack_qdrant::register(registry);
    registry.memory.missing("inline::qdrant-edge", "built without the `qdrant` feature");
    registry.memory.missing("remote::qdrant", "built without the `qdrant` feature");
}

/// The optional parts of this build.
pub(crate) fn features() -> Vec<&'static str> {
    [
        ("llama-cpp", cfg!(feature = "llama-cpp")),
        ("mistralrs", cfg!(feature = "mistralrs")),
        ("candle", cfg!(feature = "candle")),
        ("qdrant", cfg!(feature = "qdrant")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("flash-attn", cfg!(feature = "flash-attn")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}
