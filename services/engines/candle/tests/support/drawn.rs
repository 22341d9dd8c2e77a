//! Models whose weights are a formula: `drawn` of `fixtures/record.py`, in Rust.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor, safetensors};
use serde_json::Value;

use super::fixture;

/// A hash of the name and of each index.
fn drawn(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let centre = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
    let value = |index: usize| {
        let mut value = (index as u32).wrapping_mul(0x9E37_79B1).wrapping_add(seed);
        value ^= value >> 16;
        value = value.wrapping_mul(0x85EB_CA6B);
        value ^= value >> 13;
        value = value.wrapping_mul(0xC2B2_AE35);
        value ^= value >> 16;
        (centre + (f64::from(value) / 4_294_967_296.0 - 0.5)) as f32
    };
    (0..count).map(value).collect()
}

/// Writes a recorded model into a folder, in the published layout.
pub fn write(folder: &Path, recorded: &Value) {
    std::fs::write(folder.join("config.json"), recorded["config"].to_string()).unwrap();
    std::fs::copy(fixture("deberta/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let tensor = |(name, shape): (&String, &Value)| {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        let values = drawn(name, shape.iter().product());
        (name.clone(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors: HashMap<String, Tensor> = recorded["tensors"].as_object().unwrap().iter().map(tensor).collect();
    safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}
