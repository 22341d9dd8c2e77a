//! One layer: disentangled attention, then the feed-forward network.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::{Text, config::Config, positions::Positions};
use crate::kernels::{self, Activation, LayerNorm};

/// A matrix product with a bias, which whoever uses it adds in the pass that it makes anyway.
pub(super) struct Linear {
    weight: Tensor,
    bias: Vec<f32>,
}

pub(super) struct Layer {
    /// Query, key and value, side by side.
    projections: Linear,
    /// For each head the relative positions as keys, of twice the span by the head's size.
    position_keys: Option<Vec<Tensor>>,
    /// The same as queries.
    position_queries: Option<Vec<Tensor>>,
    attended: Linear,
    attended_norm: LayerNorm,
    widened: Linear,
    activation: Activation,
    narrowed: Linear,
    narrowed_norm: LayerNorm,
    heads: usize,
    head_size: usize,
    scale: f32,
}

impl Linear {
    pub(super) fn load(weights: VarBuilder<'_>, from: usize, to: usize) -> Result<Self> {
        Ok(Self { weight: weights.get((to, from), "weight")?, bias: weights.get(to, "bias")?.to_vec1()? })
    }

    /// Without the bias.
    pub(super) fn product(&self, rows: &Tensor) -> Result<Tensor> {
        rows.matmul(&self.weight.t()?)
    }

    pub(super) fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        let product = self.product(rows)?;
        kernels::each_row(&product, |_, row| kernels::add(row, &self.bias))?;
        Ok(product)
    }

    pub(super) fn activated(&self, rows: &Tensor, activation: Activation) -> Result<Tensor> {
        let product = self.product(rows)?;
        kernels::each_row(&product, |_, row| activation.apply(row, &self.bias))?;
        Ok(product)
    }

    /// What is made of `rows`, added to what was there and normalised.
    fn added(&self, rows: &Tensor, there: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let product = self.product(rows)?;
        let width = self.bias.len();
        kernels::read(there, |there| {
            kernels::each_row(&product, |at, row| {
                kernels::add(row, &self.bias);
                kernels::add(row, &there[at * width..][..width]);
                norm.apply(row);
            })
        })??;
        Ok(product)
    }
}

/// The weights of a normalisation over `width` values.
pub(super) fn layer_norm(weights: VarBuilder<'_>, width: usize, epsilon: f64) -> Result<LayerNorm> {
    let values = |name| weights.get(width, name)?.to_vec1();
    Ok(LayerNorm { weight: values("weight")?, bias: values("bias")?, epsilon: epsilon as f32 })
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
        let (output, intermediate) = (weights.pp("output"), weights.pp("intermediate.dense"));
        let norm = |weights: VarBuilder<'_>| layer_norm(weights.pp("LayerNorm"), hidden, config.layer_norm_eps);
        Ok(Self {
            position_keys: projected(config.content_to_position(), &key, "pos_key_proj")?,
            position_queries: projected(config.position_to_content(), &query, "pos_query_proj")?,
            projections: Linear {
                weight: Tensor::cat(&[&query.weight, &key.weight, &value.weight], 0)?,
                bias: [query.bias, key.bias, value.bias].concat(),
            },
            attended: Linear::load(weights.pp("attention.output.dense"), all, hidden)?,
            attended_norm: norm(weights.pp("attention.output"))?,
            widened: Linear::load(intermediate, hidden, config.intermediate_size)?,
            activation: config.hidden_act,
            narrowed: Linear::load(output.pp("dense"), config.intermediate_size, hidden)?,
            narrowed_norm: norm(output)?,
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
        let there = match first_only {
            true => Tensor::cat(&texts.iter().map(|text| states.narrow(0, text.start, 1)).collect::<Result<Vec<_>>>()?, 0)?,
            false => states.clone(),
        };
        let states = self.attended.added(&attended, &there, &self.attended_norm)?;
        let widened = self.widened.activated(&states, self.activation)?;
        self.narrowed.added(&widened, &states, &self.narrowed_norm)
    }

    /// What one head reads in one text. A text sees its own tokens and no padding, since there is none.
    fn attend(&self, projected: &Tensor, text: Text, head: usize, positions: &Positions, first_only: bool) -> Result<Tensor> {
        let size = self.head_size;
        let part = |which: usize| projected.narrow(0, text.start, text.length)?.narrow(1, (which * self.heads + head) * size, size);
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let query = if first_only { query.narrow(0, 0, 1)? } else { query };
        let scores = query.matmul(&key.t()?)?;
        let product = |rows: &Tensor, positions: &Option<Vec<Tensor>>| {
            positions.as_ref().map(|heads| rows.matmul(&heads[head].t()?)?.flatten_all()?.to_vec1::<f32>()).transpose()
        };
        let by_key = product(&query, &self.position_keys)?;
        let by_query = product(&key, &self.position_queries)?;
        let width = self.position_keys.as_ref().or(self.position_queries.as_ref()).map_or(0, |heads| heads[head].dims()[0]);
        kernels::change(&scores, |scores| {
            for (at, row) in scores.chunks_exact_mut(text.length).enumerate() {
                let places = positions.of(at, text.length);
                if let Some(by_key) = &by_key {
                    let by_key = &by_key[at * width..][..width];
                    row.iter_mut().zip(places).for_each(|(score, place)| *score += by_key[*place as usize]);
                }
                if let Some(by_query) = &by_query {
                    let by_query = by_query.chunks_exact(width);
                    row.iter_mut().zip(places).zip(by_query).for_each(|((score, place), key)| *score += key[*place as usize]);
                }
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
