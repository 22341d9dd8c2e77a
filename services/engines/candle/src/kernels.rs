//! What lies between the matrix products: row by row, in plain loops that the compiler makes vectors of.
//!
//! candle has these operations one by one, each a pass over memory with a new tensor, and takes the error function and the
//! exponential from the C library, value by value. In its DeBERTa they took four fifths of the time at 512 tokens; here a third.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;
use serde::Deserialize;

/// Values of a row that are worth handing to another thread.
const GRAIN: usize = 8_192;
/// Partial sums: so many that two vector registers are busy.
const LANES: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    #[default]
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    Tanh,
}

/// A normalisation over the values of a row.
pub(crate) struct LayerNorm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// The values of a contiguous tensor.
pub(crate) fn read<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(work(&values[start..end])),
        _ => bail!("a tensor is not contiguous or not of 32-bit floats"),
    }
}

/// The values of three.
pub(crate) fn read_all<R>([a, b, c]: [&Tensor; 3], work: impl FnOnce([&[f32]; 3]) -> R) -> Result<R> {
    read(a, |a| read(b, |b| read(c, |c| work([a, b, c]))))??
}

/// Changes the rows of a contiguous tensor, each by its index, on all threads.
pub(crate) fn each_row(tensor: &Tensor, work: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
    let width = tensor.dims().last().copied().unwrap_or(1).max(1);
    let block = (GRAIN / width).max(1);
    tensor.inplace_op1(&InPlace(|values: &mut [f32]| {
        values.par_chunks_mut(block * width).enumerate().for_each(|(at, rows)| {
            for (row, values) in rows.chunks_exact_mut(width).enumerate() {
                work(at * block + row, values);
            }
        });
    }))
}

/// Changes the values of a contiguous tensor.
pub(crate) fn change(tensor: &Tensor, work: impl Fn(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&InPlace(work))
}

struct InPlace<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "in-place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                (self.0)(&mut values[start..end]);
                Ok(())
            }
            _ => bail!("a tensor is not contiguous or not of 32-bit floats"),
        }
    }
}

pub(crate) fn add(row: &mut [f32], other: &[f32]) {
    row.iter_mut().zip(other).for_each(|(value, other)| *value += other);
}

impl Activation {
    /// Of each value and its bias.
    pub(crate) fn apply(self, row: &mut [f32], bias: &[f32]) {
        let row = row.iter_mut().zip(bias);
        match self {
            Self::Gelu => row.for_each(|(value, bias)| *value = gelu(*value + bias)),
            Self::GeluNew => row.for_each(|(value, bias)| *value = gelu_new(*value + bias)),
            Self::Relu => row.for_each(|(value, bias)| *value = (*value + bias).max(0.0)),
            Self::Tanh => row.for_each(|(value, bias)| *value = tanh(*value + bias)),
        }
    }
}

impl LayerNorm {
    pub(crate) fn apply(&self, row: &mut [f32]) {
        let count = row.len() as f32;
        let mean = sum(row, |value| value) / count;
        let variance = sum(row, |value| (value - mean) * (value - mean)) / count;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        for ((value, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *value = (*value - mean) * scale * weight + bias;
        }
    }
}

/// Values that sum to 1.
pub(crate) fn softmax(row: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = if *value > *lane { *value } else { *lane });
    }
    let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = exp(*value - highest));
    let scale = 1.0 / sum(row, |value| value);
    row.iter_mut().for_each(|value| *value *= scale);
}

#[inline(always)]
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += of(*value));
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|value| of(*value)).sum::<f32>()
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_new(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(0.797_884_6 * (x + 0.044_715 * x * x * x)))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Within 3e-7. Abramowitz and Stegun, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / size.mul_add(0.327_591_1, 1.0);
    let polynomial = t.mul_add(1.061_405_4, -1.453_152).mul_add(t, 1.421_413_8).mul_add(t, -0.284_496_74).mul_add(t, 0.254_829_6) * t;
    (1.0 - polynomial * exp(-size * size)).copysign(x)
}

/// Within 2e-7 of the value; 0 below -87 and held at that of 88 above. 2 to the power of a whole number, which is put into
/// the exponent's bits, times a polynomial for what remains (coefficients: Cephes, expf).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(2.121_944_4e-4, whole.mul_add(-0.693_359_4, x));
    let polynomial = rest
        .mul_add(1.987_569_1e-4, 1.398_199_9e-3)
        .mul_add(rest, 8.333_452e-3)
        .mul_add(rest, 4.166_579_6e-2)
        .mul_add(rest, 0.166_666_66)
        .mul_add(rest, 0.5)
        .mul_add(rest * rest, rest + 1.0);
    f32::from_bits(polynomial.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_c_library() {
        for step in -8_700..=8_700 {
            let x = step as f32 / 100.0;
            let (ours, theirs) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((ours - theirs) / theirs).abs() < 3e-7, "{x}: {ours} {theirs}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(f32::MIN) < 1e-37);
    }

    #[test]
    fn activations_are_those_of_the_reference() {
        // torch.nn.functional: gelu, gelu(approximate="tanh"), relu, tanh.
        let at = [-6.0, -1.5, -0.1, 0.0, 0.3, 2.0, 7.0];
        let cases = [
            (Activation::Gelu, [-5.9e-9, -0.100_210_8, -0.046_017_2, 0.0, 0.185_373_4, 1.954_499_7, 7.0]),
            (Activation::GeluNew, [0.0, -0.100_428_4, -0.046_017_3, 0.0, 0.185_370_9, 1.954_597_7, 7.0]),
            (Activation::Relu, [0.0, 0.0, 0.0, 0.0, 0.3, 2.0, 7.0]),
            (Activation::Tanh, [-0.999_987_7, -0.905_148_3, -0.099_668_0, 0.0, 0.291_312_6, 0.964_027_6, 0.999_998_3]),
        ];
        for (activation, wanted) in cases {
            // Half of each value comes as its bias.
            let half: Vec<f32> = at.iter().map(|value| value / 2.0).collect();
            let mut row = half.clone();
            activation.apply(&mut row, &half);
            for (value, wanted) in row.iter().zip(wanted) {
                assert!((value - wanted).abs() < 2e-6, "{activation:?}: {row:?}");
            }
        }
    }

    #[test]
    fn rows_of_any_width_are_normalised() {
        for width in [1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..width).map(|n| (n * 7 % 13) as f32 - 4.0).collect();
            let mut row = values.clone();
            softmax(&mut row);
            let whole: f64 = values.iter().map(|value| f64::from(*value).exp()).sum();
            for (ours, value) in row.iter().zip(&values) {
                assert!((f64::from(*ours) - f64::from(*value).exp() / whole).abs() < 1e-6);
            }
            let mut row = values;
            LayerNorm { weight: vec![2.0; width], bias: vec![1.0; width], epsilon: 1e-7 }.apply(&mut row);
            let mean = row.iter().sum::<f32>() / width as f32;
            assert!((mean - 1.0).abs() < 1e-5, "{row:?}");
        }
    }
}
