//! BERT as a sentence encoder: hidden states, pooled into one vector.

use candle_core::{D, DType, Device, Result};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde::Deserialize;

use crate::model::Padded;

/// How a text's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// The mean over its tokens, padding left out.
    Mean,
    /// The state of the first token.
    Cls,
}

pub(crate) struct Bert {
    network: BertModel,
    pub(crate) pooling: Pooling,
    /// Vectors are scaled to length 1.
    pub(crate) normalize: bool,
}

impl Bert {
    pub(crate) fn load(weights: VarBuilder<'_>, config: &Config, pooling: Pooling, normalize: bool) -> Result<Self> {
        Ok(Self { network: BertModel::load(weights, config)?, pooling, normalize })
    }

    /// A vector per text.
    pub(crate) fn embed(&self, batch: &Padded) -> Result<Vec<Vec<f32>>> {
        let ids = batch.ids(&Device::Cpu)?;
        let types = batch.types(&Device::Cpu)?;
        let mask = batch.mask(&Device::Cpu)?;
        let states = self.network.forward(&ids, &types, Some(&mask))?;
        let pooled = match self.pooling {
            Pooling::Cls => states.narrow(1, 0, 1)?.squeeze(1)?,
            Pooling::Mean => {
                let mask = mask.unsqueeze(D::Minus1)?;
                states.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?
            }
        };
        let mut vectors = pooled.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if self.normalize {
            vectors.iter_mut().for_each(|vector| normalize(vector));
        }
        Ok(vectors)
    }
}

/// Scales to length 1; a vector of zeros stays one.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}
