//! BERT's layers. Formulas: Devlin et al., arXiv:1810.04805; as `transformers` has them, with which the tests compare.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{Config, HiddenAct};
use rayon::prelude::*;

use crate::{
    attention::Heads,
    kernels::{self, Activation, LayerNorm},
    linear::{Linear, Rest, Text, Width, firsts, layer_norm, looked_up},
    tokens::Read,
};

/// Words → a state for each of them.
pub(crate) struct Encoder {
    words: Tensor,
    /// Of each place in the text.
    places: Tensor,
    /// Of the first and the second text of a pair.
    types: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value: one after the other, so that each stays in a core's own cache. Queries are scaled already.
    projections: [Linear; 3],
    rest: Rest,
    heads: Heads,
}

impl Encoder {
    /// `weights` where the encoder's begin, or where its model's do.
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        const WORDS: &str = "embeddings.word_embeddings.weight";
        let own = config.model_type.as_deref().unwrap_or("bert");
        let weights = if weights.contains_tensor(WORDS) { weights.clone() } else { weights.pp(own) };
        let (input, hidden) = (weights.pp("embeddings"), config.hidden_size);
        let table = |rows: usize, name: &str| input.pp(name).get((rows, hidden), "weight");
        let layer = |at: usize| Layer::load(&weights.pp("encoder.layer").pp(at), config);
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            places: table(config.max_position_embeddings, "position_embeddings")?,
            types: table(config.type_vocab_size, "token_type_embeddings")?,
            norm: layer_norm(input.pp("LayerNorm"), hidden, config.layer_norm_eps)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// A row per token, text after text; where `first_only`, one per text, for its first token.
    pub(crate) fn states(&self, batch: &[&Read], texts: &[Text], first_only: bool) -> Result<Tensor> {
        let last = (self.types.dims()[0] as u32).saturating_sub(1);
        let words = looked_up(&self.words, batch, |read| read.ids.clone())?;
        let places = looked_up(&self.places, batch, |read| (0..read.ids.len() as u32).collect())?;
        // A model with one type has no other for the second text of a pair.
        let types = looked_up(&self.types, batch, |read| read.types.iter().map(|kind| *kind.min(&last)).collect())?;
        let mut states = ((words + places)? + types)?;
        kernels::each_row(&states, |_, row| self.norm.apply(row))?;
        for (at, layer) in self.layers.iter().enumerate() {
            states = layer.forward(&states, texts, first_only && at + 1 == self.layers.len())?;
        }
        Ok(states)
    }
}

impl Layer {
    fn load(weights: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let own = weights.pp("attention.self");
        let part = |name: &str| Linear::load(own.pp(name), hidden, hidden);
        let head_size = hidden / heads;
        let query = part("query")?.scaled(1.0 / (head_size as f64).sqrt())?;
        let activation = match config.hidden_act {
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::GeluApproximate => Activation::GeluNew,
            HiddenAct::Relu => Activation::Relu,
        };
        let width = Width { hidden, heads: hidden, intermediate: config.intermediate_size };
        Ok(Self {
            projections: [query, part("key")?, part("value")?],
            rest: Rest::load(weights, width, activation, config.layer_norm_eps)?,
            heads: Heads { count: heads, size: head_size },
        })
    }

    fn forward(&self, states: &Tensor, texts: &[Text], first_only: bool) -> Result<Tensor> {
        let [queries, keys, values] = self.projections.each_ref().map(|projection| projection.apply(states));
        let (queries, keys, values) = (queries?, keys?, values?);
        let (there, rows) = match first_only {
            true => (firsts(states, texts)?, texts.len()),
            false => (states.clone(), states.dims()[0]),
        };
        let width = self.heads.width();
        let mut attended = vec![0.0; rows * width];
        let mut places = Vec::with_capacity(texts.len());
        let mut left = attended.as_mut_slice();
        for text in texts {
            let tokens = if first_only { 1 } else { text.length };
            let (place, behind) = std::mem::take(&mut left).split_at_mut(width * tokens);
            places.push((*text, place));
            left = behind;
        }
        kernels::read_all([&queries, &keys, &values], |rows| {
            places.into_par_iter().for_each(|(text, place)| {
                self.heads.attend(rows.map(|rows| &rows[text.start * width..][..text.length * width]), place);
            });
        })?;
        self.rest.forward(&Tensor::from_vec(attended, (rows, width), states.device())?, &there)
    }
}
