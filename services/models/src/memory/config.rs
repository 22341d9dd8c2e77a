//! Sizes and weights out of a folder with `config.json` and safetensors.

use std::path::Path;

use serde_json::Value;

use llama_stack_core::{Error, Result};

use super::{Sizes, Weights};
use crate::{
    disk,
    gguf::PerLayer,
    safetensors::{self, Info},
};

/// Keys are those of transformers' configurations; a model with other parts keeps those of its language model in `text_config`.
pub(super) fn sizes(path: &Path, parts: &[Info]) -> Result<Sizes> {
    let bytes = std::fs::read(path).map_err(|cause| disk::error(path, cause))?;
    let root: Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::invalid("files", "config.json is no JSON").with_source(error))?;
    of(&root, parts)
}

pub(super) fn of(root: &Value, parts: &[Info]) -> Result<Sizes> {
    let number = |key: &str| [&root["text_config"], root].into_iter().find_map(|part| u32::try_from(part[key].as_u64()?).ok());
    let needed = |key: &str| number(key).ok_or_else(|| Error::invalid("files", format!("config.json does not say {key}")));
    let (layers, embedding) = (needed("num_hidden_layers")?, needed("hidden_size")?);
    // Where heads are left to the defaults of a model's class (Gemma 3), keys and values count as wide as the embedding.
    let heads = number("num_attention_heads").unwrap_or(1).max(1);
    let of_head = number("head_dim").unwrap_or(embedding / heads).max(number("global_head_dim").unwrap_or_default());
    // DeepSeek's heads.
    let latent = number("qk_nope_head_dim").unwrap_or_default().saturating_add(number("qk_rope_head_dim").unwrap_or_default());
    let heads_kv = number("num_key_value_heads").or(number("num_attention_heads")).unwrap_or(embedding / of_head.max(1));
    let feed_forward = number("intermediate_size").unwrap_or(embedding.saturating_mul(4));
    let expert = number("moe_intermediate_size").unwrap_or(feed_forward);
    let experts = u64::from(expert) * u64::from(number("num_experts_per_tok").unwrap_or_default());
    let in_table = parts.iter().filter_map(|part| part.vocab_size).max();
    Ok(Sizes {
        layers,
        embedding: embedding.into(),
        vocab: number("vocab_size").map(u64::from).or(in_table).unwrap_or_default(),
        heads: heads.into(),
        heads_kv: PerLayer::All(heads_kv),
        key: of_head.max(latent).into(),
        value: of_head.max(number("v_head_dim").unwrap_or_default()).into(),
        feed_forward: experts.max(feed_forward.into()),
        recurrent_state: 0,
    })
}

/// Bytes of all parts, as they will be in memory. Integers stay what they are: quantised weights are packed in them.
pub(super) fn weights(parts: &[Info], weights: Weights) -> u64 {
    let widened = |part: &Info| {
        let of_type = |(name, count): (&String, &u64)| {
            let integer = name.starts_with(['I', 'U']) || name == "BOOL";
            let width = safetensors::width(name).unwrap_or(4);
            count.saturating_mul(if integer { width } else { width.max(4) })
        };
        part.dtypes.iter().map(of_type).fold(0, u64::saturating_add)
    };
    let of_part = |part: &Info| if weights == Weights::F32 { widened(part) } else { part.file_size };
    parts.iter().map(of_part).fold(0, u64::saturating_add)
}
