//! Every provider type of this build: the light ones, and the engines that were built in.

use llama_stack_core::Registry;

pub(crate) fn registry() -> Registry {
    let mut registry = llama_stack_server::registry();
    #[cfg(feature = "mistralrs")]
    llama_stack_engine_mistralrs::register(&mut registry);
    #[cfg(feature = "candle")]
    llama_stack_engine_candle::register(&mut registry);
    registry.inference.missing("inline::mistralrs", "built without the `mistralrs` feature");
    registry.inference.missing("inline::candle", "built without the `candle` feature");
    registry
}

/// The optional parts of this build.
pub(crate) fn features() -> Vec<&'static str> {
    [
        ("mistralrs", cfg!(feature = "mistralrs")),
        ("candle", cfg!(feature = "candle")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("flash-attn", cfg!(feature = "flash-attn")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}
