//! DeBERTa-v2 and v3 with a sequence-classification head.

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use candle_transformers::models::debertav2::{Config, DebertaV2SeqClassificationModel};
use llama_stack_core::Error;
use serde_json::{Map, Value, json};

use crate::model::Padded;

pub(crate) struct Deberta {
    network: DebertaV2SeqClassificationModel,
}

/// The configuration that candle reads, from what `config.json` says and what `transformers` assumes where it is silent.
///
/// `labels` are the classifier's: how many there are stands in the weights alone where the file does not name them.
///
/// # Errors
/// `InvalidArgument` for something that candle's implementation lacks; it would panic at the first text.
pub(crate) fn config(mut said: Map<String, Value>, labels: &[String]) -> llama_stack_core::Result<Config> {
    let hidden = said.get("hidden_size").cloned().unwrap_or(Value::Null);
    let assumed = [
        ("hidden_act", json!("gelu")),
        ("hidden_dropout_prob", json!(0.1)),
        ("attention_probs_dropout_prob", json!(0.1)),
        ("type_vocab_size", json!(0)),
        ("initializer_range", json!(0.02)),
        ("layer_norm_eps", json!(1e-7)),
        ("relative_attention", json!(false)),
        ("max_relative_positions", json!(-1)),
        ("position_biased_input", json!(true)),
        ("pos_att_type", json!([])),
        ("pooler_dropout", json!(0.0)),
        ("pooler_hidden_act", json!("gelu")),
        ("pooler_hidden_size", hidden),
    ];
    for (name, value) in assumed {
        let there = said.entry(name).or_insert(Value::Null);
        if there.is_null() {
            *there = value;
        }
    }
    said.insert("id2label".into(), labels.iter().enumerate().map(|(at, label)| (at.to_string(), json!(label))).collect());
    said.remove("label2id");
    let config: Config = serde_json::from_value(Value::Object(said))
        .map_err(|error| Error::invalid("files", format!("config.json does not describe a DeBERTa-v2 model: {error}")))?;
    if config.conv_kernel_size.unwrap_or(0) > 0 {
        return Err(Error::invalid("files", "config.json: conv_kernel_size: models with a convolution layer cannot be run by this engine"));
    }
    Ok(config)
}

impl Deberta {
    /// `weights` at the root of the file.
    pub(crate) fn load(weights: VarBuilder<'_>, config: &Config) -> Result<Self> {
        Ok(Self { network: DebertaV2SeqClassificationModel::load(weights.pp("deberta"), config, None)? })
    }

    /// The logits of each text, by label index.
    pub(crate) fn logits(&self, batch: &Padded) -> Result<Vec<Vec<f32>>> {
        let (ids, types, mask) = (batch.ids(&Device::Cpu)?, batch.types(&Device::Cpu)?, batch.mask(&Device::Cpu)?);
        self.network.forward(&ids, Some(types), Some(mask))?.to_dtype(DType::F32)?.to_vec2::<f32>()
    }
}

/// Sums to 1.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}
