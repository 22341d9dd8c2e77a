//! What a model needs in memory, computed from its headers before weights are read, and compared with what there is.
//!
//! ```text
//! Resolved ─┬─ header: GGUF ───────────────┐
//!           └─ config: JSON, safetensors ──┴─> Sizes ─> Footprint ─ need(context) ─> Need ─┐
//! system, control groups ─ Available::now ─────────────────────────────────> Available ────┴─> check: fits, or what would
//! ```
//!
//! Weights that are mapped from a file count like all others. Every token goes through all of them: those that found no
//! room are read from the disk again for each token, which is no way to run a model. They count once: where llama.cpp
//! repacks them for the CPU, the process seems to hold them twice, but the file's pages are not used again and give way.
//!
//! Where a header leaves a choice, the greater need is taken:
//!
//! | what | is counted as |
//! |---|---|
//! | layers with a sliding window | caching the whole context, as llama.cpp does with `swa_full`, its default |
//! | layers that share the cache of another (Gemma 3n), latent attention (DeepSeek) | caching keys and values of their own |
//! | hybrid models whose header has one KV head count for all layers | caching in every layer, and keeping a recurrent state in every layer |
//! | states of a few MiB (short convolutions, linear attention without `ssm` keys), and those of safetensors models | nothing |
//! | scratch | see [`Footprint::need`]: an estimate, where weights and cache are exact |

use serde::Deserialize;

use llama_stack_core::{Error, Result};

use crate::{
    Resolved,
    gguf::{self, PerLayer},
    safetensors,
};

mod available;
mod cgroup;
mod config;
mod fit;
mod header;

pub use available::Available;

/// Bytes that a model takes at one context length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub weights: u64,
    /// Keys and values of the whole context, and the states of recurrent layers.
    pub kv_cache: u64,
    /// Buffers of a computation, and the tables of the tokenizer; an estimate.
    pub scratch: u64,
}

impl Need {
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.scratch)
    }
}

/// How an engine will run a model, as far as memory shows it. The default is llama.cpp's, for one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub weights: Weights,
    pub kv: KvType,
    /// That may be generated at once. They share the cells of one unified cache, so they do not multiply it; each has its
    /// own logits, and its own state where layers are recurrent.
    pub sequences: u32,
    /// Tokens of a prompt that go through the layers together. `None`: the whole prompt.
    pub ubatch: Option<u32>,
    /// Logits of every token of a pass are kept, not only those of the last.
    pub all_logits: bool,
    /// Attention without a matrix of scores.
    pub flash_attention: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { weights: Weights::Stored, kv: KvType::F16, sequences: 1, ubatch: Some(512), all_logits: true, flash_attention: true }
    }
}

/// What becomes of weights on their way from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// They stay as they are stored: GGUF in llama.cpp, half precision.
    Stored,
    /// Of a GGUF file, the token table becomes F32: candle's quantised models.
    TokenTableF32,
    /// All become F32: where a CPU computes in nothing shorter.
    F32,
}

/// The type of the numbers in a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    F32,
    #[default]
    F16,
    Bf16,
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    #[serde(rename = "iq4_nl")]
    Iq4Nl,
}

impl KvType {
    /// Bytes of a row of so many numbers.
    pub fn row(self, numbers: u64) -> u64 {
        let (block, bytes) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q5_1 => (32, 24),
            Self::Q5_0 => (32, 22),
            Self::Q4_1 => (32, 20),
            Self::Q4_0 | Self::Iq4Nl => (32, 18),
        };
        numbers.div_ceil(block).saturating_mul(bytes)
    }
}

/// Bytes per token of the vocabulary: its text, its merges, and what finds them.
const TOKENIZER: u64 = 512;

/// What a footprint follows from; what recurs in all layers is the greatest of them.
struct Sizes {
    layers: u32,
    embedding: u64,
    vocab: u64,
    heads: u64,
    heads_kv: PerLayer,
    /// Numbers in the key of one head.
    key: u64,
    value: u64,
    /// Of one token: with a mixture of experts, of all that it goes through.
    feed_forward: u64,
    /// Numbers per layer and sequence.
    recurrent_state: u64,
}

/// A model as one engine would load it: what it needs at any context length.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    weights: u64,
    /// Bytes of KV cache per token.
    kv_per_token: u64,
    /// Bytes of all recurrent states.
    states: u64,
    vocab: u64,
    /// Of attention, in the layer that has the most.
    heads: u64,
    /// Numbers that a token takes on its way through one layer.
    activations: u64,
    load: Load,
}

impl Footprint {
    /// Reads headers, not weights. Blocks; some milliseconds.
    ///
    /// # Errors
    /// `InvalidArgument` where the headers do not say how many layers there are or how wide they are, and where there is
    /// neither a GGUF nor a safetensors file · as [`gguf::inspect`] and [`safetensors::inspect`].
    pub fn of(files: &Resolved, load: Load) -> Result<Self> {
        Self::of_files(files, load).map_err(|error| error.context(format_args!("model {:?}", files.id)))
    }

    fn of_files(files: &Resolved, load: Load) -> Result<Self> {
        let parts = files.with_extension("gguf");
        if !parts.is_empty() {
            return Self::gguf(&parts.into_iter().map(gguf::inspect).collect::<Result<Vec<_>>>()?, load);
        }
        let parts = files.with_extension("safetensors");
        if parts.is_empty() {
            return Err(Error::invalid("files", "there is neither a .gguf nor a .safetensors file"));
        }
        let parts = parts.into_iter().map(safetensors::inspect).collect::<Result<Vec<_>>>()?;
        let sizes = config::sizes(files.file("config.json")?, &parts)?;
        Ok(Self::new(&sizes, config::weights(&parts, load.weights), load))
    }

    /// Of a GGUF model with all its parts; a vision projector among them counts as weights.
    ///
    /// # Errors
    /// `InvalidArgument` where no header says how many layers there are, or how wide they are.
    pub fn gguf(parts: &[gguf::Info], load: Load) -> Result<Self> {
        let sizes = header::sizes(parts)?;
        Ok(Self::new(&sizes, header::weights(parts, &sizes, load.weights), load))
    }

    fn new(sizes: &Sizes, weights: u64, load: Load) -> Self {
        let heads_kv = u64::from(sizes.heads_kv.greatest());
        let row = |heads: u32, length: u64| load.kv.row(length.saturating_mul(heads.into()));
        let attention = sizes.heads.saturating_add(heads_kv).saturating_mul(sizes.key.saturating_add(sizes.value));
        Self {
            weights,
            kv_per_token: sizes.heads_kv.sum(sizes.layers, |heads| row(heads, sizes.key).saturating_add(row(heads, sizes.value))),
            states: [sizes.layers.into(), load.sequences.into(), 4].into_iter().fold(sizes.recurrent_state, u64::saturating_mul),
            vocab: sizes.vocab,
            heads: sizes.heads,
            activations: [2 * sizes.embedding, attention, sizes.feed_forward.saturating_mul(3)].into_iter().fold(0, u64::saturating_add),
            load,
        }
    }

    /// At so many tokens, rounded up to the next multiple of 256 as llama.cpp does. All sequences together have that many.
    ///
    /// Weights and cache are exact but for what the head of this module says. Scratch is an estimate: with `t` tokens in a
    /// pass, 4 bytes times the sum of
    ///
    /// * `t` × (2 embeddings, queries, keys, values and the result of attention, 3 feed-forward widths)
    /// * logits of `t` tokens, or of one per sequence, and one more row of them per sequence
    /// * the mask, `t` × context, and without flash attention one more for each head
    ///
    /// and 512 bytes for each token of the vocabulary. llama.cpp overlays buffers that this adds up: with three small
    /// models they took 81 to 91 % of it, and the tokenizer 350 bytes.
    pub fn need(&self, context: u32) -> Need {
        let cells = u64::from(context).next_multiple_of(fit::STEP.into());
        let tokens = self.load.ubatch.map_or(cells, |most| cells.min(most.into()));
        let sequences = u64::from(self.load.sequences);
        let logits = if self.load.all_logits { tokens.max(sequences) } else { sequences };
        let masks = if self.load.flash_attention { 1 } else { self.heads.saturating_add(1) };
        let numbers = tokens
            .saturating_mul(self.activations)
            .saturating_add(logits.saturating_add(sequences).saturating_mul(self.vocab))
            .saturating_add(tokens.saturating_mul(cells).saturating_mul(masks));
        Need {
            weights: self.weights,
            kv_cache: cells.saturating_mul(self.kv_per_token).saturating_add(self.states),
            scratch: numbers.saturating_mul(4).saturating_add(self.vocab.saturating_mul(TOKENIZER)),
        }
    }
}

#[cfg(test)]
mod tests;
