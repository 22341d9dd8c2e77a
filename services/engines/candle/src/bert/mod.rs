//! BERT as a sentence encoder: hidden states, pooled into one vector.
//!
//! ```text
//! words + places + types ─ norm ─> states ─┬─ layer: query·key ─ softmax ─ values ─ feed-forward
//!                                          └─ … ─> pooled ─> norm ─> vector
//! ```
//!
//! As in `deberta`, texts of a batch lie one after the other, without padding, and what lies between the matrix products
//! is a pass or two of `kernels`.

use candle_core::Result;
use candle_nn::VarBuilder;
use candle_transformers::models::bert::Config;
use serde::Deserialize;

mod encoder;

pub(crate) use encoder::Encoder;

use crate::{kernels, linear::Text, tokens::Read};

/// How a text's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// The mean over its tokens.
    Mean,
    /// The state of the first token.
    Cls,
}

pub(crate) struct Bert {
    encoder: Encoder,
    pub(crate) pooling: Pooling,
    /// Vectors are scaled to length 1.
    pub(crate) normalize: bool,
}

impl Bert {
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &Config, pooling: Pooling, normalize: bool) -> Result<Self> {
        Ok(Self { encoder: Encoder::load(weights, config)?, pooling, normalize })
    }

    /// A vector per text.
    pub(crate) fn embed(&self, batch: &[&Read]) -> Result<Vec<Vec<f32>>> {
        let texts = Text::all(batch);
        let states = self.encoder.states(batch, &texts, self.pooling == Pooling::Cls)?;
        let mut vectors: Vec<Vec<f32>> = match self.pooling {
            Pooling::Cls => states.to_vec2()?,
            Pooling::Mean => {
                let width = states.dims()[1];
                let mean = |states: &[f32], text: &Text| mean(&states[text.start * width..][..text.length * width], width);
                kernels::read(&states, |states| texts.iter().map(|text| mean(states, text)).collect())?
            }
        };
        if self.normalize {
            vectors.iter_mut().for_each(|vector| normalize(vector));
        }
        Ok(vectors)
    }
}

fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    rows.chunks_exact(width).for_each(|row| kernels::add(&mut sum, row));
    let count = (rows.len() / width) as f32;
    sum.iter_mut().for_each(|value| *value /= count);
    sum
}

/// Scales to length 1; a vector of zeros stays one.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}
