//! A tiny model of the llama architecture, and LoRA adapters for it: applied by the engine, or added to its weights by hand.

use std::path::Path;

use super::{drawn, gguf::Writer};

const HIDDEN: usize = 64;
const BETWEEN: usize = 128;
const HEADS: usize = 4;
const KV: usize = HIDDEN / 2;
const LAYERS: usize = 2;
/// 256 bytes and some control tokens.
pub const VOCABULARY: usize = 260;
const RANK: usize = 4;
/// LoRA multiplies by it and divides by the rank.
const ALPHA: f32 = 8.0;

/// Weights that adapters are usually made for.
const ADAPTED: [&str; 4] = ["attn_q", "attn_v", "attn_output", "ffn_down"];

/// A model's weights come from its name. `adapter` is added to them with this scale.
pub fn write(path: &Path, name: &str, adapter: Option<(&str, f32)>) {
    write_with(path, name, adapter, "<|odd|>");
}

/// As [`write`], with another text for one of the tokens.
pub fn write_with(path: &Path, name: &str, adapter: Option<(&str, f32)>, odd: &str) {
    let mut tokens: Vec<String> = (0..=255).map(|byte| spelled(byte).to_string()).collect();
    tokens.extend(["<|begin|>", "<|end|>", "<|pad|>", odd].map(str::to_owned));
    let kinds: Vec<i32> = (0..VOCABULARY).map(|id| if id < 256 { 1 } else { 3 }).collect();
    let mut writer = Writer::new("llama")
        .number("llama.context_length", 512)
        .number("llama.embedding_length", HIDDEN as u32)
        .number("llama.feed_forward_length", BETWEEN as u32)
        .number("llama.block_count", LAYERS as u32)
        .number("llama.attention.head_count", HEADS as u32)
        .number("llama.attention.head_count_kv", (HEADS / 2) as u32)
        .number("llama.rope.dimension_count", (HIDDEN / HEADS) as u32)
        .number("llama.vocab_size", VOCABULARY as u32)
        .float("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "default")
        .texts("tokenizer.ggml.tokens", &tokens)
        .numbers("tokenizer.ggml.token_type", &kinds)
        .texts("tokenizer.ggml.merges", &["h e".to_owned()])
        .number("tokenizer.ggml.bos_token_id", 256)
        .number("tokenizer.ggml.eos_token_id", 257)
        .truth("tokenizer.ggml.add_bos_token", false);
    writer.tensor("token_embd.weight", &[VOCABULARY, HIDDEN], drawn(&format!("{name} words"), VOCABULARY * HIDDEN, 2.0));
    writer.tensor("output_norm.weight", &[HIDDEN], vec![1.0; HIDDEN]);
    // The end is never the likeliest token.
    // And it is seldom in doubt.
    let mut output = drawn(&format!("{name} output"), VOCABULARY * HIDDEN, 3.0);
    output[256 * HIDDEN..].fill(0.0);
    writer.tensor("output.weight", &[VOCABULARY, HIDDEN], output);
    for layer in 0..LAYERS {
        for norm in ["attn_norm", "ffn_norm"] {
            writer.tensor(&format!("blk.{layer}.{norm}.weight"), &[HIDDEN], vec![1.0; HIDDEN]);
        }
        for (part, rows, columns) in parts() {
            let tensor = format!("blk.{layer}.{part}.weight");
            let mut values = drawn(&format!("{name} {tensor}"), rows * columns, 0.4);
            if let Some((adapter, scale)) = adapter.filter(|_| ADAPTED.contains(&part)) {
                let (a, b) = matrices(adapter, &tensor, rows, columns);
                for (at, value) in values.iter_mut().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let product: f32 = (0..RANK).map(|rank| b[row * RANK + rank] * a[rank * columns + column]).sum();
                    *value += scale * ALPHA / RANK as f32 * product;
                }
            }
            writer.tensor(&tensor, &[rows, columns], values);
        }
    }
    writer.write(path);
}

/// An adapter's weights come from its name.
pub fn write_adapter(path: &Path, name: &str) {
    let mut writer = Writer::new("llama").text("general.type", "adapter").text("adapter.type", "lora").float("adapter.lora.alpha", ALPHA);
    for layer in 0..LAYERS {
        for (part, rows, columns) in parts().into_iter().filter(|(part, ..)| ADAPTED.contains(part)) {
            let tensor = format!("blk.{layer}.{part}.weight");
            let (a, b) = matrices(name, &tensor, rows, columns);
            writer.tensor(&format!("{tensor}.lora_a"), &[RANK, columns], a);
            writer.tensor(&format!("{tensor}.lora_b"), &[rows, RANK], b);
        }
    }
    writer.write(path);
}

fn parts() -> [(&'static str, usize, usize); 7] {
    [
        ("attn_q", HIDDEN, HIDDEN),
        ("attn_k", KV, HIDDEN),
        ("attn_v", KV, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_gate", BETWEEN, HIDDEN),
        ("ffn_up", BETWEEN, HIDDEN),
        ("ffn_down", HIDDEN, BETWEEN),
    ]
}

fn matrices(adapter: &str, tensor: &str, rows: usize, columns: usize) -> (Vec<f32>, Vec<f32>) {
    let matrix = |side: &str, count: usize| drawn(&format!("{adapter} {tensor} {side}"), count, 0.5);
    (matrix("a", RANK * columns), matrix("b", rows * RANK))
}

/// How byte-level BPE writes a byte: what can be printed as itself, everything else from U+0100 on.
fn spelled(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(0x100 + before).unwrap()
}
