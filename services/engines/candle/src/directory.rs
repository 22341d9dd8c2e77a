//! A model's files, read and checked before candle sees them.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use llama_stack_core::{Error, Result};
use llama_stack_models::Resolved;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::bert::Pooling;

/// The files of one model.
pub(crate) struct Directory<'a>(pub(crate) &'a Resolved);

impl Directory<'_> {
    /// # Errors
    /// `InvalidArgument` for a missing file or one that is no JSON object.
    pub(crate) fn config(&self) -> Result<Map<String, Value>> {
        self.0.file("config.json")?;
        self.json("config.json")?.ok_or_else(|| Error::invalid("files", "config.json is missing"))
    }

    /// # Errors
    /// `InvalidArgument` for a missing file or one that is no tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_file(self.0.file("tokenizer.json")?)
            .map_err(|cause| Error::invalid("files", format!("tokenizer.json is not a tokenizer: {}", first_line(&cause.to_string()))))
    }

    /// All tensors, of one file or of the parts of a split one.
    ///
    /// # Errors
    /// `InvalidArgument` for a missing file or one that candle cannot read.
    pub(crate) fn weights(&self) -> Result<Weights> {
        let parts: Vec<_> = match self.0.files.get("model.safetensors") {
            Some(whole) => vec![whole.as_path()],
            None => self.0.files.iter().filter(|(name, _)| is_part(name)).map(|(_, path)| path.as_path()).collect(),
        };
        if parts.is_empty() {
            self.0.file("model.safetensors")?;
        }
        let mut tensors = HashMap::new();
        for part in parts {
            let name = part.file_name().unwrap_or_default().to_string_lossy();
            let read = candle_core::safetensors::load(part, &Device::Cpu)
                .map_err(|cause| Error::invalid("files", format!("{name} cannot be read: {}", first_line(&cause.to_string()))))?;
            tensors.extend(read);
        }
        Ok(Weights(tensors))
    }

    /// What sentence-transformers wrote about pooling; none where it wrote nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a pooling that this engine lacks.
    pub(crate) fn pooling(&self) -> Result<Option<Pooling>> {
        const FILE: &str = "1_Pooling/config.json";
        let Some(said) = self.json::<Map<String, Value>>(FILE)? else { return Ok(None) };
        let modes: Vec<&str> = said
            .iter()
            .filter(|(key, on)| key.starts_with("pooling_mode_") && **on == Value::Bool(true))
            .map(|(key, _)| key.as_str())
            .collect();
        match modes.as_slice() {
            ["pooling_mode_mean_tokens"] => Ok(Some(Pooling::Mean)),
            ["pooling_mode_cls_token"] => Ok(Some(Pooling::Cls)),
            modes => Err(Error::invalid("files", format!("{FILE} asks for {}; this engine pools by mean or cls", modes.join(" and ")))),
        }
    }

    /// What sentence-transformers wrote about length.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that is no JSON object.
    pub(crate) fn max_seq_length(&self) -> Result<Option<usize>> {
        let said: Option<Map<String, Value>> = self.json("sentence_bert_config.json")?;
        Ok(said.and_then(|said| said.get("max_seq_length")?.as_u64()).and_then(|length| length.try_into().ok()))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(path) = self.0.files.get(name) else { return Ok(None) };
        let text = std::fs::read(path)
            .map_err(|cause| Error::invalid("files", format!("{name} cannot be read: {}", cause.kind())).with_source(cause))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::invalid("files", format!("{name} is not a JSON object: {error}")))
    }
}

/// `model-00001-of-00002.safetensors`
fn is_part(name: &str) -> bool {
    name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors")
}

pub(crate) struct Weights(HashMap<String, Tensor>);

impl Weights {
    /// How many rows a tensor has.
    pub(crate) fn rows(&self, name: &str) -> Option<usize> {
        self.0.get(name).and_then(|tensor| tensor.dims().first().copied())
    }

    pub(crate) fn into_builder(self) -> VarBuilder<'static> {
        VarBuilder::from_tensors(self.0, DType::F32, &Device::Cpu)
    }
}

/// candle adds a backtrace where there is one.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}
