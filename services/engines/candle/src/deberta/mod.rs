//! DeBERTa-v2 and v3 with a sequence-classification head: Prompt Guard, among others.
//!
//! ```text
//! words ─ norm ─> states ─┬─ layer: scores = query·key + query·position + position·key ─ softmax ─ values ─ feed-forward
//!                         └─ … the last one for the first token alone ─> pooler ─> logits
//! ```
//!
//! Texts of a batch lie one after the other, without padding. Formulas: He et al., arXiv:2006.03654; as `transformers` has
//! them, with which the tests compare.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

mod config;
mod layer;
mod positions;

pub(crate) use config::Config;
use layer::Layer;
use positions::Positions;

use crate::{
    kernels::{self, Activation, LayerNorm},
    linear::{Linear, Text, layer_norm, looked_up},
    tokens::Read,
};

pub(crate) struct Deberta {
    words: Tensor,
    /// Of each place in the text, for models whose input knows places.
    places: Option<Tensor>,
    /// Of the first and the second text of a pair.
    types: Option<Tensor>,
    widened: Option<Tensor>,
    norm: LayerNorm,
    positions: Positions,
    layers: Vec<Layer>,
    pooler: Linear,
    pooler_activation: Activation,
    classifier: Linear,
}

impl Deberta {
    /// `weights` at the root of the file, for `labels` labels.
    pub(crate) fn load(weights: VarBuilder<'_>, config: &Config, labels: usize) -> Result<Self> {
        let (hidden, width) = (config.hidden_size, config.embedding_size());
        let (input, encoder) = (weights.pp("deberta.embeddings"), weights.pp("deberta.encoder"));
        let table = |wanted: bool, rows: usize, name: &str| match wanted {
            true => input.pp(name).get((rows, width), "weight").map(Some),
            false => Ok(None),
        };
        let positions = match config.relative_attention {
            true => Some(relative_embeddings(&encoder, config)?),
            false => None,
        };
        let layer = |at: usize| Layer::load(encoder.pp("layer").pp(at), config, positions.as_ref());
        Ok(Self {
            words: input.pp("word_embeddings").get((config.vocab_size, width), "weight")?,
            places: table(config.position_biased_input, config.max_position_embeddings, "position_embeddings")?,
            types: table(config.type_vocab_size > 0, config.type_vocab_size, "token_type_embeddings")?,
            widened: if width == hidden { None } else { Some(input.pp("embed_proj").get((hidden, width), "weight")?) },
            norm: layer_norm(input.pp("LayerNorm"), hidden, config.layer_norm_eps)?,
            positions: Positions::new(config),
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            pooler: Linear::load(weights.pp("pooler.dense"), hidden, hidden)?,
            pooler_activation: config.pooler_hidden_act,
            classifier: Linear::load(weights.pp("classifier"), hidden, labels)?,
        })
    }

    /// The logits of each text, by label index.
    pub(crate) fn logits(&self, batch: &[&Read]) -> Result<Vec<Vec<f32>>> {
        let texts = Text::all(batch);
        let mut states = self.embed(batch)?;
        for (at, layer) in self.layers.iter().enumerate() {
            states = layer.forward(&states, &texts, &self.positions, at + 1 == self.layers.len())?;
        }
        self.classifier.apply(&self.pooler.activated(&states, self.pooler_activation)?)?.to_vec2()
    }

    /// A row per token.
    fn embed(&self, batch: &[&Read]) -> Result<Tensor> {
        let mut states = looked_up(&self.words, batch, |read| read.ids.clone())?;
        if let Some(places) = &self.places {
            states = (states + looked_up(places, batch, |read| (0..read.ids.len() as u32).collect())?)?;
        }
        if let Some(types) = &self.types {
            // A model with one type has no other for the second text of a pair.
            let last = types.dims()[0] as u32 - 1;
            states = (states + looked_up(types, batch, |read| read.types.iter().map(|kind| *kind.min(&last)).collect())?)?;
        }
        if let Some(widened) = &self.widened {
            states = states.matmul(&widened.t()?)?;
        }
        kernels::each_row(&states, |_, row| self.norm.apply(row))?;
        Ok(states)
    }
}

/// The relative positions that all layers share.
fn relative_embeddings(encoder: &VarBuilder<'_>, config: &Config) -> Result<Tensor> {
    let rows = encoder.get((2 * config.span(), config.hidden_size), "rel_embeddings.weight")?;
    if !config.normalizes_positions() {
        return Ok(rows);
    }
    let norm = layer_norm(encoder.pp("LayerNorm"), config.hidden_size, config.layer_norm_eps)?;
    let rows = rows.copy()?;
    kernels::each_row(&rows, |_, row| norm.apply(row))?;
    Ok(rows)
}

/// Sums to 1.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let mut values = logits.to_vec();
    kernels::softmax(&mut values);
    values
}
