use std::num::NonZeroUsize;

use llama_stack_models::{Load, ModelSpec};
use serde::Deserialize;

/// The `config` of `inline::mistralrs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// At least one.
    pub models: Vec<ModelSpec>,
    /// Requests that may wait for a model while it answers another; more are refused. Per model, default 64.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// Tokens of an answer where the request names no number. Default: what the context leaves.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// When weights are read. Files are fetched and checked at start in any case.
    #[serde(default)]
    pub load: Load,
}

/// A model's `options`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Keep off the GPU in a build that could use one.
    pub cpu: bool,
    /// Quantise safetensors while they are loaded, for example `q8_0` or `q4k`. GGUF files are quantised already.
    pub isq: Option<String>,
    /// Read this many tokens of a prompt at once and the rest token by token: whoever cancels a request with a long prompt
    /// frees the engine with the next token. On a CPU reading then takes half as long again. Default: all at once.
    pub prompt_step: Option<NonZeroUsize>,
}

fn default_queue() -> usize {
    64
}
