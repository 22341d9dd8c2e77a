//! BERT that reads a query and a document together and says how well they fit: a cross-encoder.

use candle_core::Result;
use candle_nn::VarBuilder;
use candle_transformers::models::bert::Config;

use crate::{
    bert::Encoder,
    kernels::Activation,
    linear::{Linear, Text},
    tokens::Read,
};

pub(crate) struct CrossEncoder {
    encoder: Encoder,
    pooler: Linear,
    classifier: Linear,
}

impl CrossEncoder {
    /// `weights` at the root of the file, as `BertForSequenceClassification` with one label is published.
    pub(crate) fn load(weights: &VarBuilder<'_>, config: &Config) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            pooler: Linear::load(weights.pp("bert.pooler.dense"), hidden, hidden)?,
            classifier: Linear::load(weights.pp("classifier"), hidden, 1)?,
            encoder: Encoder::load(&weights.pp("bert"), config)?,
        })
    }

    /// One logit per pair.
    pub(crate) fn logits(&self, batch: &[&Read]) -> Result<Vec<Vec<f32>>> {
        let first = self.encoder.states(batch, &Text::all(batch), true)?;
        self.classifier.apply(&self.pooler.activated(&first, Activation::Tanh)?)?.to_vec2()
    }
}

/// 0 to 1, as sentence-transformers scores with a cross-encoder of one label.
pub(crate) fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
