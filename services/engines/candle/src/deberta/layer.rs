//! One layer: disentangled attention, then the feed-forward network.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::{config::Config, positions::Positions};
use crate::{
    kernels,
    linear::{Linear, Rest, Text, Width, firsts},
};

pub(super) struct Layer {
    /// Query, key and value, side by side.
    projections: Linear,
    /// For each head the relative positions as keys, of twice the span by the head's size.
    position_keys: Option<Vec<Tensor>>,
    /// The same as queries.
    position_queries: Option<Vec<Tensor>>,
    rest: Rest,
    heads: usize,
    head_size: usize,
    scale: f32,
}

impl Layer {
    /// `positions` are the relative embeddings, the same for all layers: what a layer makes of them is made once, here.
    pub(super) fn load(weights: VarBuilder<'_>, config: &Config, positions: Option<&Tensor>) -> Result<Self> {
        let (hidden, heads, head_size) = (config.hidden_size, config.num_attention_heads, config.head_size());
        let all = heads * head_size;
        let own = weights.pp("attention.self");
        let parts = ["query_proj", "key_proj", "value_proj"].map(|name| Linear::load(own.pp(name), hidden, all));
        let [query, key, value] = parts;
        let (query, key, value) = (query?, key?, value?);
        let projected = |wanted: bool, shared: &Linear, name: &str| -> Result<Option<Vec<Tensor>>> {
            let Some(positions) = positions.filter(|_| wanted) else { return Ok(None) };
            let rows = if config.shares_projections() {
                shared.apply(positions)?
            } else {
                Linear::load(own.pp(name), hidden, all)?.apply(positions)?
            };
            (0..heads).map(|head| rows.narrow(1, head * head_size, head_size)?.contiguous()).collect::<Result<_>>().map(Some)
        };
        let width = Width { hidden, heads: all, intermediate: config.intermediate_size };
        Ok(Self {
            position_keys: projected(config.content_to_position(), &key, "pos_key_proj")?,
            position_queries: projected(config.position_to_content(), &query, "pos_query_proj")?,
            projections: Linear::joined([query, key, value])?,
            rest: Rest::load(&weights, width, config.hidden_act, config.layer_norm_eps)?,
            heads,
            head_size,
            scale: 1.0 / config.scale(),
        })
    }

    /// `states` has a row per token, text after text. The answer has too, or, where `first_only`, one for the first token of
    /// each text: what the last layer would make of the others is read by nobody.
    pub(super) fn forward(&self, states: &Tensor, texts: &[Text], positions: &Positions, first_only: bool) -> Result<Tensor> {
        let projected = self.projections.apply(states)?;
        let parts: Vec<(Text, usize)> = texts.iter().flat_map(|text| (0..self.heads).map(|head| (*text, head))).collect();
        let attended = parts
            .par_iter()
            .map(|(text, head)| self.attend(&projected, *text, *head, positions, first_only))
            .collect::<Result<Vec<_>>>()?;
        let attended = self.side_by_side(&attended)?;
        let there = if first_only { firsts(states, texts)? } else { states.clone() };
        self.rest.forward(&attended, &there)
    }

    /// What one head reads in one text. A text sees its own tokens and no padding, since there is none.
    fn attend(&self, projected: &Tensor, text: Text, head: usize, positions: &Positions, first_only: bool) -> Result<Tensor> {
        let size = self.head_size;
        let part = |which: usize| projected.narrow(0, text.start, text.length)?.narrow(1, (which * self.heads + head) * size, size);
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let query = if first_only { query.narrow(0, 0, 1)? } else { query };
        let scores = query.matmul(&key.t()?)?;
        let by_key = self.position_keys.as_ref().map(|heads| query.matmul(&heads[head].t()?)).transpose()?;
        // Positions by keys, and not the other way round: what one query reads of it, and the next one, lies close together.
        let by_query = self.position_queries.as_ref().map(|heads| heads[head].matmul(&key.t()?)).transpose()?;
        if let Some(by_key) = by_key {
            let width = by_key.dims()[1];
            kernels::read(&by_key, |by_key| {
                kernels::change(&scores, |scores| {
                    for (at, row) in scores.chunks_exact_mut(text.length).enumerate() {
                        let by_key = &by_key[at * width..][..width];
                        row.iter_mut().zip(positions.of(at, text.length)).for_each(|(score, place)| *score += by_key[*place as usize]);
                    }
                })
            })??;
        }
        if let Some(by_query) = by_query {
            kernels::read(&by_query, |by_query| {
                kernels::change(&scores, |scores| {
                    for (at, row) in scores.chunks_exact_mut(text.length).enumerate() {
                        let places = positions.of(at, text.length).iter().enumerate();
                        row.iter_mut()
                            .zip(places)
                            .for_each(|(score, (key, place))| *score += by_query[*place as usize * text.length + key]);
                    }
                })
            })??;
        }
        kernels::change(&scores, |scores| {
            for row in scores.chunks_exact_mut(text.length) {
                row.iter_mut().for_each(|score| *score *= self.scale);
                kernels::softmax(row);
            }
        })?;
        scores.matmul(&value)
    }

    /// The heads of each text beside each other, the texts below each other.
    fn side_by_side(&self, parts: &[Tensor]) -> Result<Tensor> {
        let texts = parts.chunks(self.heads).map(|heads| Tensor::cat(heads, 1)).collect::<Result<Vec<_>>>()?;
        if let [one] = texts.as_slice() { Ok(one.clone()) } else { Tensor::cat(&texts, 0) }
    }
}
