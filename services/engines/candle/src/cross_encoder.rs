//! BERT that reads a query and a document together and says how well they fit: a cross-encoder.

use candle_core::{DType, Device, Result};
use candle_nn::{Linear, Module, VarBuilder, linear};
use candle_transformers::models::bert::{BertModel, Config};

use crate::model::Padded;

pub(crate) struct CrossEncoder {
    network: BertModel,
    pooler: Linear,
    classifier: Linear,
}

impl CrossEncoder {
    /// `weights` at the root of the file, as `BertForSequenceClassification` with one label is published.
    pub(crate) fn load(weights: VarBuilder<'_>, config: &Config) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            pooler: linear(hidden, hidden, weights.pp("bert.pooler.dense"))?,
            classifier: linear(hidden, 1, weights.pp("classifier"))?,
            network: BertModel::load(weights.pp("bert"), config)?,
        })
    }

    /// One logit per pair.
    pub(crate) fn logits(&self, batch: &Padded) -> Result<Vec<Vec<f32>>> {
        let (ids, types, mask) = (batch.ids(&Device::Cpu)?, batch.types(&Device::Cpu)?, batch.mask(&Device::Cpu)?);
        let first = self.network.forward(&ids, &types, Some(&mask))?.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        self.classifier.forward(&self.pooler.forward(&first)?.tanh()?)?.to_dtype(DType::F32)?.to_vec2()
    }
}

/// 0 to 1, as sentence-transformers scores with a cross-encoder of one label.
pub(crate) fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
