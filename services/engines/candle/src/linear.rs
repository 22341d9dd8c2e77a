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

/// Of the feed-forward network's width, so much is computed at a time: its values, and the weights that make them and read
/// them, then stay in a core's own cache. All at once is mostly slower.
const BLOCK: usize = 384;

/// What follows attention in a layer: its output, then the feed-forward network.
pub(crate) struct Rest {
    attended: Linear,
    attended_norm: LayerNorm,
    blocks: Vec<Block>,
    activation: Activation,
    narrowed_bias: Vec<f32>,
    narrowed_norm: LayerNorm,
}

/// A part of the feed-forward network: some of the values between, and what they add to the result.
struct Block {
    widened: Linear,
    narrowed: Tensor,
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
    fn product(&self, rows: &Tensor) -> Result<Tensor> {
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
}

/// A product with its bias, added to what was there and normalised.
fn finish(product: &Tensor, bias: &[f32], there: &Tensor, norm: &LayerNorm) -> Result<()> {
    let width = bias.len();
    kernels::read(there, |there| {
        kernels::each_row(product, |at, row| {
            kernels::add(row, bias);
            kernels::add(row, &there[at * width..][..width]);
            norm.apply(row);
        })
    })?
}

impl Rest {
    /// `weights` of the layer.
    pub(crate) fn load(weights: &VarBuilder<'_>, width: Width, activation: Activation, epsilon: f64) -> Result<Self> {
        let Width { hidden, heads, intermediate } = width;
        let norm = |name: &str| layer_norm(weights.pp(name).pp("LayerNorm"), hidden, epsilon);
        let widened = Linear::load(weights.pp("intermediate.dense"), hidden, intermediate)?;
        let narrowed = Linear::load(weights.pp("output.dense"), intermediate, hidden)?;
        let block = |from: usize| {
            let count = BLOCK.min(intermediate - from);
            let weight = widened.weight.narrow(0, from, count)?;
            let widened = Linear { weight, bias: widened.bias[from..from + count].to_vec() };
            Ok(Block { widened, narrowed: narrowed.weight.narrow(1, from, count)?.contiguous()? })
        };
        Ok(Self {
            attended: Linear::load(weights.pp("attention.output.dense"), heads, hidden)?,
            attended_norm: norm("attention.output")?,
            blocks: (0..intermediate).step_by(BLOCK).map(block).collect::<Result<_>>()?,
            activation,
            narrowed_bias: narrowed.bias,
            narrowed_norm: norm("output")?,
        })
    }

    /// `attended`: what the heads read, side by side. `there`: what the layer began with, in the same rows.
    pub(crate) fn forward(&self, attended: &Tensor, there: &Tensor) -> Result<Tensor> {
        let states = self.attended.product(attended)?;
        finish(&states, &self.attended.bias, there, &self.attended_norm)?;
        let part = |block: &Block| block.widened.activated(&states, self.activation)?.matmul(&block.narrowed.t()?);
        let (first, others) = self.blocks.split_first().ok_or_else(|| candle_core::Error::msg("a layer without a feed-forward network"))?;
        let sum = part(first)?;
        for block in others {
            let width = self.narrowed_bias.len();
            kernels::read(&part(block)?, |part| kernels::each_row(&sum, |at, row| kernels::add(row, &part[at * width..][..width])))??;
        }
        finish(&sum, &self.narrowed_bias, &states, &self.narrowed_norm)?;
        Ok(sum)
    }
}

/// The weights of a normalisation over `width` values.
pub(crate) fn layer_norm(weights: VarBuilder<'_>, width: usize, epsilon: f64) -> Result<LayerNorm> {
    let values = |name| weights.get(width, name)?.to_vec1();
    Ok(LayerNorm { weight: values("weight")?, bias: values("bias")?, epsilon: epsilon as f32 })
}
