//! A tiny BERT, twice: as it is published, for candle, and as a GGUF file.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{drawn, gguf::Writer};

const HIDDEN: usize = 64;
const BETWEEN: usize = 128;
const LAYERS: usize = 2;
const HEADS: usize = 2;
const PLACES: usize = 64;
const WORDS: [&str; 27] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "rose", "by", "seven", "feet", "bread", "is", "baked", "from", "flour",
    "and", "water", "a", "city", "stone", "##s", "##ing", "walk", ".", "?", "what",
];
const SPECIAL: usize = 5;

/// From the names in the published layout to those in GGUF, below a layer.
const LAYER: [(&str, &str, usize, usize); 6] = [
    ("attention.self.query", "attn_q", HIDDEN, HIDDEN),
    ("attention.self.key", "attn_k", HIDDEN, HIDDEN),
    ("attention.self.value", "attn_v", HIDDEN, HIDDEN),
    ("attention.output.dense", "attn_output", HIDDEN, HIDDEN),
    ("intermediate.dense", "ffn_up", BETWEEN, HIDDEN),
    ("output.dense", "ffn_down", HIDDEN, BETWEEN),
];
const NORMS: [(&str, &str); 2] = [("attention.output.LayerNorm", "attn_output_norm"), ("output.LayerNorm", "layer_output_norm")];

/// A weight: its published name, that in GGUF, its shape and its values.
type Weight = (String, String, Vec<usize>, Vec<f32>);

fn weights(reranks: bool) -> Vec<Weight> {
    let mut all: Vec<Weight> = Vec::new();
    let mut add = |published: String, gguf: String, shape: &[usize], values: Vec<f32>| all.push((published, gguf, shape.to_vec(), values));
    let table = |name: &str, rows: usize| drawn(name, rows * HIDDEN, 1.0);
    add("embeddings.word_embeddings.weight".into(), "token_embd.weight".into(), &[WORDS.len(), HIDDEN], table("words", WORDS.len()));
    add("embeddings.position_embeddings.weight".into(), "position_embd.weight".into(), &[PLACES, HIDDEN], table("places", PLACES));
    // llama.cpp takes both texts of a pair for the first: with one type it is right.
    add("embeddings.token_type_embeddings.weight".into(), "token_types.weight".into(), &[1, HIDDEN], table("types", 1));
    let norm = |name: &str| {
        [("weight", 1.0), ("bias", 0.0)].map(|(kind, centre)| {
            (kind, drawn(&format!("{name}.{kind}"), HIDDEN, 0.2).iter().map(|value| value + centre).collect::<Vec<f32>>())
        })
    };
    for (kind, values) in norm("norm") {
        add(format!("embeddings.LayerNorm.{kind}"), format!("token_embd_norm.{kind}"), &[HIDDEN], values);
    }
    for layer in 0..LAYERS {
        for (published, gguf, rows, columns) in LAYER {
            let name = format!("{layer}.{gguf}");
            add(
                format!("encoder.layer.{layer}.{published}.weight"),
                format!("blk.{layer}.{gguf}.weight"),
                &[rows, columns],
                drawn(&name, rows * columns, 0.7),
            );
            add(
                format!("encoder.layer.{layer}.{published}.bias"),
                format!("blk.{layer}.{gguf}.bias"),
                &[rows],
                drawn(&format!("{name}.bias"), rows, 0.3),
            );
        }
        for (published, gguf) in NORMS {
            for (kind, values) in norm(&format!("{layer}.{gguf}")) {
                add(format!("encoder.layer.{layer}.{published}.{kind}"), format!("blk.{layer}.{gguf}.{kind}"), &[HIDDEN], values);
            }
        }
    }
    if reranks {
        all.iter_mut().for_each(|weight| weight.0.insert_str(0, "bert."));
        let mut add = |published: &str, gguf: &str, shape: &[usize], scale: f32| {
            let values = drawn(published, shape.iter().product(), scale);
            all.push((published.into(), gguf.into(), shape.to_vec(), values));
        };
        add("bert.pooler.dense.weight", "cls.weight", &[HIDDEN, HIDDEN], 0.3);
        add("bert.pooler.dense.bias", "cls.bias", &[HIDDEN], 0.3);
        add("classifier.weight", "cls.output.weight", &[1, HIDDEN], 2.0);
        add("classifier.bias", "cls.output.bias", &[1], 1.0);
    }
    all
}

/// The folder as `BertModel`, or `BertForSequenceClassification`, is published.
pub fn publish(folder: &Path, reranks: bool) {
    let config = json!({
        "model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": BETWEEN, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "max_position_embeddings": PLACES,
        "type_vocab_size": 1, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "architectures": [if reranks { "BertForSequenceClassification" } else { "BertModel" }],
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vocabulary: Map<String, Value> = WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special: Vec<Value> = (0..SPECIAL)
        .map(|id| json!({ "id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }))
        .collect();
    let part = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let token = |name: &str, kind: u32| json!({ "SpecialToken": { "id": name, "type_id": kind } });
    let named = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]", 0), part("A", 0), token("[SEP]", 0)],
            "pair": [token("[CLS]", 0), part("A", 0), token("[SEP]", 0), part("B", 1), token("[SEP]", 1)],
            "special_tokens": { "[CLS]": named("[CLS]", 2), "[SEP]": named("[SEP]", 3) },
        },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, _, shape, values) in weights(reranks) {
        let begin = data.len();
        values.iter().for_each(|value| data.extend(value.to_le_bytes()));
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] }));
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

/// The same weights as GGUF. It names no end token, as files of encoders need not.
pub fn convert(path: &Path, reranks: bool) {
    let piece = |(id, word): (usize, &&str)| match word.strip_prefix("##") {
        _ if id < SPECIAL => (*word).to_owned(),
        Some(rest) => rest.to_owned(),
        None => format!("\u{2581}{word}"),
    };
    let pieces: Vec<String> = WORDS.iter().enumerate().map(piece).collect();
    let kinds: Vec<i32> = (0..WORDS.len()).map(|id| if id < SPECIAL { 3 } else { 1 }).collect();
    let mut writer = Writer::new("bert")
        .number("bert.context_length", PLACES as u32)
        .number("bert.embedding_length", HIDDEN as u32)
        .number("bert.feed_forward_length", BETWEEN as u32)
        .number("bert.block_count", LAYERS as u32)
        .number("bert.attention.head_count", HEADS as u32)
        .float("bert.attention.layer_norm_epsilon", 1e-12)
        .truth("bert.attention.causal", false)
        .number("bert.pooling_type", 1)
        .number("tokenizer.ggml.token_type_count", 1)
        .text("tokenizer.ggml.model", "bert")
        .texts("tokenizer.ggml.tokens", &pieces)
        .numbers("tokenizer.ggml.token_type", &kinds)
        .number("tokenizer.ggml.bos_token_id", 2)
        .number("tokenizer.ggml.cls_token_id", 2)
        .number("tokenizer.ggml.seperator_token_id", 3)
        .number("tokenizer.ggml.unknown_token_id", 1)
        .number("tokenizer.ggml.padding_token_id", 0)
        .number("tokenizer.ggml.mask_token_id", 4);
    for (_, name, shape, values) in weights(reranks) {
        writer.tensor(&name, &shape, values);
    }
    writer.write(path);
}
