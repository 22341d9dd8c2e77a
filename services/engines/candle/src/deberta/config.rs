//! What `config.json` says of a DeBERTa-v2 or v3, and what `transformers` assumes where it is silent.

use llama_stack_core::{Error, Result};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::kernels::Activation;

/// Keys that have no effect on what is computed are not read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) max_position_embeddings: usize,
    #[serde(default)]
    pub(crate) hidden_act: Activation,
    #[serde(default)]
    pub(crate) type_vocab_size: usize,
    #[serde(default = "epsilon")]
    pub(crate) layer_norm_eps: f64,
    #[serde(default)]
    pub(crate) relative_attention: bool,
    #[serde(default)]
    max_relative_positions: Option<i64>,
    #[serde(default)]
    position_buckets: Option<i64>,
    #[serde(default = "yes")]
    pub(crate) position_biased_input: bool,
    #[serde(default, deserialize_with = "words")]
    pos_att_type: Vec<String>,
    #[serde(default, deserialize_with = "words")]
    norm_rel_ebd: Vec<String>,
    #[serde(default)]
    share_att_key: Option<bool>,
    #[serde(default)]
    attention_head_size: Option<usize>,
    #[serde(default)]
    embedding_size: Option<usize>,
    #[serde(default)]
    conv_kernel_size: Option<i64>,
    #[serde(default)]
    pub(crate) pooler_hidden_act: Activation,
}

fn epsilon() -> f64 {
    1e-7
}

fn yes() -> bool {
    true
}

/// A list of words, or one text with `|` between them.
fn words<'de, D: Deserializer<'de>>(read: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        None(()),
        Text(String),
        List(Vec<String>),
    }
    let list = match Words::deserialize(read)? {
        Words::None(()) => Vec::new(),
        Words::Text(text) => text.split('|').map(str::to_owned).collect(),
        Words::List(list) => list,
    };
    Ok(list.iter().map(|word| word.trim().to_lowercase()).collect())
}

impl Config {
    /// # Errors
    /// `InvalidArgument` for what is missing or crooked, and for a layer that this engine lacks.
    pub(crate) fn read(mut said: Map<String, Value>) -> Result<Self> {
        // `transformers` takes null for silence.
        said.retain(|_, value| !value.is_null());
        let config: Self = serde_json::from_value(Value::Object(said))
            .map_err(|error| Error::invalid("files", format!("config.json does not describe a DeBERTa-v2 model: {error}")))?;
        let wrong = |message: &str| Err(Error::invalid("files", format!("config.json: {message}")));
        if config.conv_kernel_size.is_some_and(|size| size > 0) {
            return wrong("conv_kernel_size: models with a convolution layer cannot be run by this engine");
        }
        if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return wrong(&format!(
                "hidden_size {} is no multiple of num_attention_heads {}",
                config.hidden_size, config.num_attention_heads
            ));
        }
        if config.num_hidden_layers == 0 || config.hidden_size == 0 || config.head_size() == 0 || config.max_position_embeddings == 0 {
            return wrong("a model has at least one layer, one position and a hidden size");
        }
        Ok(config)
    }

    pub(crate) fn head_size(&self) -> usize {
        self.attention_head_size.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Of the word embeddings, where that is not the hidden size.
    pub(crate) fn embedding_size(&self) -> usize {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// Scores from content to position.
    pub(crate) fn content_to_position(&self) -> bool {
        self.relative_attention && self.pos_att_type.iter().any(|kind| kind == "c2p")
    }

    /// Scores from position to content.
    pub(crate) fn position_to_content(&self) -> bool {
        self.relative_attention && self.pos_att_type.iter().any(|kind| kind == "p2c")
    }

    /// What attention scores are divided by: the root of the head's size, once for each kind of score.
    pub(crate) fn scale(&self) -> f32 {
        // `transformers` counts the kinds that are named, used or not.
        let named = ["c2p", "p2c"].iter().filter(|kind| self.pos_att_type.iter().any(|there| there == *kind)).count();
        ((self.head_size() * (1 + named)) as f32).sqrt()
    }

    /// Positions use the projections of the content's queries and keys.
    pub(crate) fn shares_projections(&self) -> bool {
        self.share_att_key.unwrap_or(false)
    }

    pub(crate) fn normalizes_positions(&self) -> bool {
        self.norm_rel_ebd.iter().any(|word| word == "layer_norm")
    }

    pub(crate) fn max_distance(&self) -> usize {
        match self.max_relative_positions {
            Some(distance) if distance > 0 => distance as usize,
            _ => self.max_position_embeddings,
        }
    }

    /// None: a position of its own for each distance.
    pub(crate) fn buckets(&self) -> Option<usize> {
        self.position_buckets.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0)
    }

    /// Half of the rows that the relative positions have.
    pub(crate) fn span(&self) -> usize {
        self.buckets().unwrap_or(self.max_distance())
    }
}
