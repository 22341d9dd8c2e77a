//! Files → a model that has computed once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_transformers::models::bert;
use llama_stack_core::{Error, Result};
use llama_stack_models::Resolved;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use tokio_util::sync::CancellationToken;

use crate::{
    bert::{Bert, Pooling},
    cross_encoder::CrossEncoder,
    deberta::{self, Deberta},
    directory::{Directory, Weights, first_line},
    model::{Model, Network},
    tokens::{Input, Reader},
};

/// What the manifest says under a model's `options`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Of embedding models. Default: what `1_Pooling/config.json` says, else `mean`.
    pooling: Option<Pooling>,
    /// Scale vectors to length 1. Default true.
    normalize: bool,
    /// Tokens of a text, those around it included. Default: `max_seq_length` of `sentence_bert_config.json`, else what
    /// `config.json` allows, which is also the maximum.
    max_tokens: Option<usize>,
    /// Tokens computed at once. Default 256: more are no faster on a CPU, and a batch is also how long a dropped request goes on.
    batch_tokens: usize,
    /// The model was trained so that the beginning of a vector is a vector: `dimensions` may be asked for. Default false.
    shortens: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { pooling: None, normalize: true, max_tokens: None, batch_tokens: 256, shortens: false }
    }
}

/// Reads everything from disk and computes a first text. Takes its time: for a blocking thread.
///
/// # Errors
/// `InvalidArgument` with a sentence that names the file that is missing, broken, or does not fit another one.
pub(crate) fn load(files: &Resolved, options: &Options) -> Result<Model> {
    // candle panics on some crooked configurations, a division by zero heads among them.
    let loaded = catch_unwind(AssertUnwindSafe(|| build(files, options))).unwrap_or_else(|_| {
        Err(Error::invalid("files", "the engine broke down on these files: config.json and the weights are not of one model"))
    });
    loaded.map_err(|error| error.context(format_args!("model {:?}", files.id)))
}

fn build(files: &Resolved, options: &Options) -> Result<Model> {
    let directory = Directory(files);
    let config = directory.config()?;
    let (tokenizer, weights) = (directory.tokenizer()?, directory.weights()?);
    let model = match config.get("model_type").and_then(Value::as_str).unwrap_or_default() {
        "bert" if weights.rows("classifier.weight").is_some() => reranker(&directory, options, config, tokenizer, weights)?,
        "bert" => embedding(&directory, options, config, tokenizer, weights)?,
        "deberta-v2" => classifier(&directory, options, config, tokenizer, weights)?,
        other => {
            let message = format!(
                "config.json: model_type {other:?} is not one that this engine runs: bert (embeddings, reranking), deberta-v2 (classification)"
            );
            return Err(Error::invalid("files", message));
        }
    };
    let read = model.reader.read(vec![Input::Text("a".into())], true, &CancellationToken::new())?;
    let width = model.compute(&[&read[0]])?.first().map_or(0, Vec::len);
    if width != model.width() {
        return Err(Error::invalid("files", format!("the model computes {width} values where config.json promises another number")));
    }
    Ok(model)
}

fn embedding(
    directory: &Directory<'_>,
    options: &Options,
    config: Map<String, Value>,
    tokenizer: Tokenizer,
    weights: Weights,
) -> Result<Model> {
    let config: bert::Config = serde_json::from_value(Value::Object(config))
        .map_err(|error| Error::invalid("files", format!("config.json does not describe a BERT model: {error}")))?;
    let longest = max_tokens(directory, options, config.max_position_embeddings)?;
    let pooling = match options.pooling {
        Some(pooling) => pooling,
        None => directory.pooling()?.unwrap_or(Pooling::Mean),
    };
    let bert = Bert::load(&weights.into_builder(), &config, pooling, options.normalize).map_err(unfit)?;
    Ok(Model {
        id: directory.0.id.clone(),
        license: directory.0.license.clone(),
        reader: Reader::new(tokenizer, longest, config.vocab_size)?,
        network: Network::Bert(Box::new(bert)),
        batch_tokens: options.batch_tokens,
        shortens: options.shortens,
        dimension: config.hidden_size,
        labels: Vec::new(),
    })
}

/// A cross-encoder. One with several labels classifies, which this engine does with DeBERTa alone.
fn reranker(
    directory: &Directory<'_>,
    options: &Options,
    config: Map<String, Value>,
    tokenizer: Tokenizer,
    weights: Weights,
) -> Result<Model> {
    let labels = weights.rows("classifier.weight").unwrap_or_default();
    if labels != 1 {
        return Err(Error::invalid("files", format!("this BERT classifies by {labels} labels: a reranker has one")));
    }
    let config: bert::Config = serde_json::from_value(Value::Object(config))
        .map_err(|error| Error::invalid("files", format!("config.json does not describe a BERT model: {error}")))?;
    let longest = max_tokens(directory, options, config.max_position_embeddings)?;
    let encoder = CrossEncoder::load(&weights.into_builder(), &config).map_err(unfit)?;
    Ok(Model {
        id: directory.0.id.clone(),
        license: directory.0.license.clone(),
        reader: Reader::new(tokenizer, longest, config.vocab_size)?,
        network: Network::CrossEncoder(Box::new(encoder)),
        batch_tokens: options.batch_tokens,
        shortens: false,
        dimension: 0,
        labels: Vec::new(),
    })
}

fn classifier(
    directory: &Directory<'_>,
    options: &Options,
    config: Map<String, Value>,
    tokenizer: Tokenizer,
    weights: Weights,
) -> Result<Model> {
    let count = weights.rows("classifier.weight").ok_or_else(|| {
        Error::invalid("files", "the weights have no classifier.weight: this DeBERTa was not saved with a classification head")
    })?;
    let labels = labels(&config, count)?;
    let config = deberta::Config::read(config)?;
    let longest = max_tokens(directory, options, config.max_position_embeddings)?;
    let deberta = Deberta::load(weights.into_builder(), &config, count).map_err(unfit)?;
    Ok(Model {
        id: directory.0.id.clone(),
        license: directory.0.license.clone(),
        reader: Reader::new(tokenizer, longest, config.vocab_size)?,
        network: Network::Deberta(Box::new(deberta)),
        batch_tokens: options.batch_tokens,
        shortens: false,
        dimension: 0,
        labels,
    })
}

/// The names of `count` labels; `LABEL_0`, `LABEL_1`, … where the file names none, as `transformers` has it.
fn labels(config: &Map<String, Value>, count: usize) -> Result<Vec<String>> {
    let Some(named) = config.get("id2label").and_then(Value::as_object) else {
        return Ok((0..count).map(|index| format!("LABEL_{index}")).collect());
    };
    let name = |index: usize| named.get(&index.to_string()).and_then(Value::as_str).map(str::to_owned);
    let labels: Option<Vec<String>> = (0..count).map(name).collect();
    labels.filter(|labels| labels.len() == named.len()).ok_or_else(|| {
        Error::invalid("files", format!("config.json: id2label names {} labels, and the classifier has {count}", named.len()))
    })
}

fn max_tokens(directory: &Directory<'_>, options: &Options, positions: usize) -> Result<usize> {
    let set = options.max_tokens.or(directory.0.context_length.map(|length| length as usize));
    let longest = match set {
        Some(length) => length,
        None => directory.max_seq_length()?.unwrap_or(positions).min(positions),
    };
    // Two are taken by what the tokenizer puts around a text, three around a pair.
    if !(4..=positions).contains(&longest) {
        return Err(Error::invalid("options.max_tokens", format!("max_tokens is {longest}; this model takes 4 to {positions}")));
    }
    Ok(longest)
}

fn unfit(cause: candle_core::Error) -> Error {
    Error::invalid("files", format!("the weights do not fit config.json: {}", first_line(&cause.to_string())))
}
