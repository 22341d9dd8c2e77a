//! The sizes that the caches and buffers of a running model follow from.

use super::metadata::Metadata;

/// What a header says of layers. `None` and 0: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub head_count: Option<PerLayer>,
    pub head_count_kv: Option<PerLayer>,
    /// Numbers in the key of one head; the greater, where layers with a sliding window have others.
    pub key_length: Option<u32>,
    /// The same of values.
    pub value_length: Option<u32>,
    pub feed_forward_length: Option<PerLayer>,
    /// Of one expert of a mixture.
    pub expert_feed_forward_length: Option<u32>,
    /// Experts that a token goes through.
    pub expert_used_count: Option<u32>,
    /// Numbers that a recurrent layer keeps of a sequence, whatever its length.
    pub recurrent_state: u64,
}

/// A size that is one for all layers, or has its own value in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerLayer {
    All(u32),
    Each(Vec<u32>),
}

impl PerLayer {
    pub fn greatest(&self) -> u32 {
        match self {
            Self::All(size) => *size,
            Self::Each(sizes) => sizes.iter().copied().max().unwrap_or_default(),
        }
    }

    /// Of layers that have it at all. `None`: no layer has.
    pub fn least(&self) -> Option<u32> {
        match self {
            Self::All(size) => Some(*size).filter(|size| *size > 0),
            Self::Each(sizes) => sizes.iter().copied().filter(|size| *size > 0).min(),
        }
    }

    /// The sum of `of` over `layers` layers; layers that a list does not reach count with its greatest size.
    pub fn sum(&self, layers: u32, of: impl Fn(u32) -> u64) -> u64 {
        let each = match self {
            Self::All(_) => [].as_slice(),
            Self::Each(sizes) => sizes.as_slice(),
        };
        let listed = each.iter().zip(0..layers).fold(0_u64, |sum, (size, _)| sum.saturating_add(of(*size)));
        let others = u64::from(layers).saturating_sub(each.len() as u64);
        listed.saturating_add(of(self.greatest()).saturating_mul(others))
    }
}

impl Shape {
    pub(super) fn read(metadata: &Metadata, architecture: &str) -> Self {
        let key = |name: &str| format!("{architecture}.{name}");
        let number = |name: &str| metadata.u32(&key(name));
        let per_layer = |name: &str| metadata.per_layer(&key(name));
        Self {
            head_count: per_layer("attention.head_count"),
            head_count_kv: per_layer("attention.head_count_kv"),
            key_length: number("attention.key_length").max(number("attention.key_length_swa")),
            value_length: number("attention.value_length").max(number("attention.value_length_swa")),
            feed_forward_length: per_layer("feed_forward_length"),
            expert_feed_forward_length: number("expert_feed_forward_length"),
            expert_used_count: number("expert_used_count"),
            recurrent_state: recurrent_state(|name| number(name).map_or(0, u64::from)),
        }
    }
}

/// As llama.cpp lays it out (`llama-hparams.cpp`, `n_embd_r` and `n_embd_s`): Mamba and its relatives, and RWKV.
fn recurrent_state(size: impl Fn(&str) -> u64) -> u64 {
    let (inner, state) = (size("ssm.inner_size"), size("ssm.state_size"));
    let channels = inner.saturating_add(size("ssm.group_count").saturating_mul(state).saturating_mul(2));
    let convolution = size("ssm.conv_kernel").saturating_sub(1).saturating_mul(channels);
    let mamba = convolution.saturating_add(state.saturating_mul(inner));
    let rwkv = match (size("wkv.head_size"), size("token_shift_count")) {
        (0, _) => 0,
        // llama.cpp's default.
        (head, 0) => head.saturating_add(2),
        (head, shift) => head.saturating_add(shift),
    };
    mamba.saturating_add(size("embedding_length").saturating_mul(rwkv))
}
