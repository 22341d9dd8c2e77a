use std::{num::NonZeroU32, path::PathBuf};

use llama_stack_core::{Error, Result};
use llama_stack_models::{Load, ModelSpec};
use serde::Deserialize;

/// The `config` of `inline::llama-cpp`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// At least one.
    pub models: Vec<ModelSpec>,
    /// Requests that may wait for a model beside those that run; more are refused. Per model, default 64.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// Tokens of an answer where the request names no number. Default: what the context leaves.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// When weights are read. Files are fetched and checked at start in any case.
    #[serde(default)]
    pub load: Load,
    /// A model that nobody has asked for so many seconds is unloaded, until somebody does. Default: it stays.
    #[serde(default)]
    pub keep_alive_seconds: Option<u64>,
    /// What the models that are loaded may need together. Where that leaves too little for another, the one goes that was
    /// unused for the longest time. Default: what the machine has.
    #[serde(default)]
    pub memory_megabytes: Option<u64>,
}

/// A model's `options`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Threads that compute. Default: the machine's cores but one, which is left to the server.
    pub threads: Option<NonZeroU32>,
    /// Answers made at once, 1 to 64. Default 8.
    pub parallel: u32,
    /// Most tokens computed in one step, 1 to 512. Default 256: more are no faster on a CPU.
    pub batch: u32,
    /// Tokens that the cache holds, of all answers that are being made and of prefixes that are kept for the next.
    /// Default and least: the context's length.
    pub cache_tokens: Option<u32>,
    /// What the cache stores: `f16` (default), or `q8_0` at half the memory.
    pub cache_type: CacheType,
    /// Keep what was read for requests that begin the same. Default true.
    pub prefix_reuse: bool,
    /// Write what is kept to disk when the stack stops or the model is unloaded, up to so many megabytes, and read it when the
    /// model is loaded: conversations go on without being read again. Default: nothing is written.
    pub keep_on_disk_megabytes: u64,
    /// Guess at text that repeats the prompt; changes speed, never the answer. Default true.
    pub drafts: bool,
    /// A second, small model that guesses where the prompt has nothing to repeat; changes speed, never the answer.
    pub draft: Option<Draft>,
    /// A LoRA adapter (a GGUF file), applied to every answer; at most one.
    pub adapters: Vec<Adapter>,
    /// Layers to compute on a GPU, in a build that has one. Default: all.
    pub gpu_layers: Option<u32>,
    /// Default: what the file's architecture is made for.
    pub kind: Option<Kind>,
    /// How the vectors of a text's tokens become one. Default: what the file says.
    pub pooling: Option<Pooling>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The id of another model of the same provider, with the same vocabulary. It is loaded beside this one.
    pub model: String,
    /// Tokens that it guesses at once, 1 to 16. Default 4. It guesses fewer where it doubts or was wrong.
    #[serde(default = "default_guesses")]
    pub tokens: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    pub path: PathBuf,
    /// How much of it: 1 as it was trained.
    #[serde(default = "one")]
    pub scale: f32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    #[default]
    F16,
    #[serde(rename = "q8_0")]
    Q8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Chat,
    Embedding,
    Reranker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    Mean,
    Cls,
    Last,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: None,
            parallel: 8,
            batch: 256,
            cache_tokens: None,
            cache_type: CacheType::default(),
            prefix_reuse: true,
            keep_on_disk_megabytes: 0,
            drafts: true,
            draft: None,
            adapters: Vec::new(),
            gpu_layers: None,
            kind: None,
            pooling: None,
        }
    }
}

impl Options {
    /// What a number or a path can be known to be wrong by before anything is loaded.
    ///
    /// # Errors
    /// `InvalidArgument` on the option.
    pub(crate) fn check(&self) -> Result<()> {
        let within = |option: &str, value: u32, most: u32| {
            let wrong = || Error::invalid(format!("options.{option}"), format!("options.{option} is {value}; it is 1 to {most}"));
            if (1..=most).contains(&value) { Ok(()) } else { Err(wrong()) }
        };
        within("parallel", self.parallel, 64)?;
        within("batch", self.batch, 512)?;
        if self.adapters.len() > 1 {
            let message = format!("options.adapters names {}; llama.cpp is given one here: merge them", self.adapters.len());
            return Err(Error::invalid("options.adapters", message));
        }
        for adapter in &self.adapters {
            if !adapter.path.is_file() {
                return Err(Error::invalid("options.adapters[0].path", format!("there is no file {}", adapter.path.display())));
            }
            if !adapter.scale.is_finite() {
                return Err(Error::invalid("options.adapters[0].scale", "options.adapters[0].scale is no finite number"));
            }
        }
        Ok(())
    }

    pub(crate) fn threads(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        self.threads.map_or_else(|| cores().saturating_sub(1).max(1), NonZeroU32::get)
    }
}

fn default_queue() -> usize {
    64
}

fn default_guesses() -> u32 {
    4
}

fn one() -> f32 {
    1.0
}
