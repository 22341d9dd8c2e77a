//! Sizes and weights out of GGUF headers.

use llama_stack_core::{Error, Result};

use super::{Sizes, Weights};
use crate::gguf::{Info, PerLayer};

/// The part that describes the model. A vision projector beside it has layers too, but no vocabulary.
fn model(parts: &[Info]) -> Option<&Info> {
    parts.iter().find(|part| part.vocab_size.is_some()).or(parts.first())
}

pub(super) fn sizes(parts: &[Info]) -> Result<Sizes> {
    let known = model(parts).and_then(|info| Some((info, info.block_count?, info.embedding_length?)));
    let Some((info, layers, embedding)) = known else {
        return Err(Error::invalid("files", "the GGUF header does not say how many layers there are, or how wide they are"));
    };
    let shape = &info.shape;
    let none = PerLayer::All(0);
    let heads = shape.head_count.as_ref().unwrap_or(&none);
    // As llama.cpp: of the least count, which gives the widest heads.
    let of_head = heads.least().map_or(0, |heads| embedding / heads);
    let feed_forward = shape.feed_forward_length.as_ref().map_or(0, PerLayer::greatest);
    let expert = shape.expert_feed_forward_length.unwrap_or(feed_forward);
    let experts = u64::from(expert) * u64::from(shape.expert_used_count.unwrap_or_default());
    Ok(Sizes {
        layers,
        embedding: embedding.into(),
        vocab: info.vocab_size.map_or(0, u64::from),
        heads: heads.greatest().into(),
        heads_kv: shape.head_count_kv.as_ref().unwrap_or(heads).clone(),
        key: shape.key_length.unwrap_or(of_head).into(),
        value: shape.value_length.unwrap_or(of_head).into(),
        feed_forward: experts.max(feed_forward.into()),
        recurrent_state: shape.recurrent_state,
    })
}

/// Bytes of all parts, as they will be in memory.
pub(super) fn weights(parts: &[Info], sizes: &Sizes, weights: Weights) -> u64 {
    let sum = |of: fn(&Info) -> u64| parts.iter().fold(0_u64, |sum, part| sum.saturating_add(of(part)));
    let stored = sum(|part| part.tensor_bytes);
    match weights {
        Weights::Stored => stored,
        Weights::TokenTableF32 => stored.saturating_add(sizes.vocab.saturating_mul(sizes.embedding).saturating_mul(4)),
        Weights::F32 => sum(|part| part.parameters).saturating_mul(4),
    }
}
