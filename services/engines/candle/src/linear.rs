//! What the layers of the BERT family have in common: products with a bias, normalisations, and all that follows attention.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::{
    kernels::{self, Activation, LayerNorm},
    tokens::Read,
};

/// A matrix product with a bias, which whoever uses it adds in the pass that it makes anyway.
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Vec<f32>,
}

/// What follows attention in a layer: its output, then the feed-forward network.
pub(crate) struct Rest {
    attended: Linear,
    attended_norm: LayerNorm,
    widened: Linear,
    activation: Activation,
    narrowed: Linear,
    narrowed_norm: LayerNorm,
}

/// How wide a layer is.
#[derive(Clone, Copy)]
pub(crate) struct Width {
    pub(crate) hidden: usize,
    /// Of all heads.
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
}

/// Where a text of a batch lies: texts are one after the other, without padding.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

impl Text {
    pub(crate) fn all(batch: &[&Read]) -> Vec<Self> {
        let mut start = 0;
        let text = |read: &&Read| {
            let text = Self { start, length: read.ids.len() };
            start += text.length;
            text
        };
        batch.iter().map(text).collect()
    }
}

/// The rows of a table that the texts' tokens name, text after text.
pub(crate) fn looked_up(table: &Tensor, batch: &[&Read], of: impl Fn(&Read) -> Vec<u32>) -> Result<Tensor> {
    let indices: Vec<u32> = batch.iter().flat_map(|read| of(read)).collect();
    table.index_select(&Tensor::new(indices, &Device::Cpu)?, 0)
}

/// The row of the first token of each text.
pub(crate) fn firsts(states: &Tensor, texts: &[Text]) -> Result<Tensor> {
    Tensor::cat(&texts.iter().map(|text| states.narrow(0, text.start, 1)).collect::<Result<Vec<_>>>()?, 0)
}

impl Linear {
    pub(crate) fn load(weights: VarBuilder<'_>, from: usize, to: usize) -> Result<Self> {
        Ok(Self { weight: weights.get((to, from), "weight")?, bias: weights.get(to, "bias")?.to_vec1()? })
    }

    /// Their results side by side, from one product.
    pub(crate) fn joined(parts: [Self; 3]) -> Result<Self> {
        let weight = Tensor::cat(&parts.each_ref().map(|part| &part.weight), 0)?;
        Ok(Self { weight, bias: parts.into_iter().flat_map(|part| part.bias).collect() })
    }

    /// Its results times a number.
    pub(crate) fn scaled(self, by: f64) -> Result<Self> {
        let bias = self.bias.into_iter().map(|value| value * by as f32).collect();
        Ok(Self { weight: (self.weight * by)?, bias })
    }

    /// Without the bias.
    pub(crate) fn product(&self, rows: &Tensor) -> Result<Tensor> {
        rows.matmul(&self.weight.t()?)
    }

    pub(crate) fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        let product = self.product(rows)?;
        kernels::each_row(&product, |_, row| kernels::add(row, &self.bias))?;
        Ok(product)
    }

    pub(crate) fn activated(&self, rows: &Tensor, activation: Activation) -> Result<Tensor> {
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

impl Rest {
    /// `weights` of the layer.
    pub(crate) fn load(weights: &VarBuilder<'_>, width: Width, activation: Activation, epsilon: f64) -> Result<Self> {
        let Width { hidden, heads, intermediate } = width;
        let norm = |name: &str| layer_norm(weights.pp(name).pp("LayerNorm"), hidden, epsilon);
        Ok(Self {
            attended: Linear::load(weights.pp("attention.output.dense"), heads, hidden)?,
            attended_norm: norm("attention.output")?,
            widened: Linear::load(weights.pp("intermediate.dense"), hidden, intermediate)?,
            activation,
            narrowed: Linear::load(weights.pp("output.dense"), intermediate, hidden)?,
            narrowed_norm: norm("output")?,
        })
    }

    /// `attended`: what the heads read, side by side. `there`: what the layer began with, in the same rows.
    pub(crate) fn forward(&self, attended: &Tensor, there: &Tensor) -> Result<Tensor> {
        let states = self.attended.added(attended, there, &self.attended_norm)?;
        let widened = self.widened.activated(&states, self.activation)?;
        self.narrowed.added(&widened, &states, &self.narrowed_norm)
    }
}

/// The weights of a normalisation over `width` values.
pub(crate) fn layer_norm(weights: VarBuilder<'_>, width: usize, epsilon: f64) -> Result<LayerNorm> {
    let values = |name| weights.get(width, name)?.to_vec1();
    Ok(LayerNorm { weight: values("weight")?, bias: values("bias")?, epsilon: epsilon as f32 })
}
