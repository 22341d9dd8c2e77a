//! Tiny models that tests make themselves: weights are a formula, files are in the published layouts.

pub mod bert;
pub mod gguf;
pub mod llama;

/// So many numbers between -0.5 and 0.5, times `scale`, that depend on the name alone.
pub fn drawn(name: &str, count: usize, scale: f32) -> Vec<f32> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let value = |index: usize| {
        let mut value = (index as u32).wrapping_mul(0x9E37_79B1).wrapping_add(seed);
        value = (value ^ (value >> 16)).wrapping_mul(0x85EB_CA6B);
        value = (value ^ (value >> 13)).wrapping_mul(0xC2B2_AE35);
        value ^= value >> 16;
        (f64::from(value) / 4_294_967_296.0 - 0.5) as f32 * scale
    };
    (0..count).map(value).collect()
}
