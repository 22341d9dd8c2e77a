//! A loaded model: what it is, and one batch through it.

use llama_stack_core::{Error, Result, ids};
use llama_stack_proto::v1::{self, ModelKind};

use crate::{
    bert::Bert,
    cross_encoder::CrossEncoder,
    deberta::Deberta,
    tokens::{Read, Reader},
};

pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) license: Option<String>,
    pub(crate) reader: Reader,
    pub(crate) network: Network,
    /// Tokens per batch.
    pub(crate) batch_tokens: usize,
    /// It was trained so that the beginning of a vector is a vector.
    pub(crate) shortens: bool,
    /// Of its vectors; 0 for a model that makes none.
    pub(crate) dimension: usize,
    /// Of a classifier, by index.
    pub(crate) labels: Vec<String>,
}

pub(crate) enum Network {
    Bert(Box<Bert>),
    Deberta(Box<Deberta>),
    CrossEncoder(Box<CrossEncoder>),
}

impl Model {
    /// Values per text.
    pub(crate) fn width(&self) -> usize {
        match self.network {
            Network::Bert(_) => self.dimension,
            Network::Deberta(_) => self.labels.len(),
            Network::CrossEncoder(_) => 1,
        }
    }

    /// What it can be asked for.
    pub(crate) fn does(&self) -> &'static str {
        match self.network {
            Network::Bert(_) => "embeds",
            Network::Deberta(_) => "classifies",
            Network::CrossEncoder(_) => "reranks",
        }
    }

    pub(crate) fn describe(&self, provider_id: &str) -> v1::Model {
        let (kind, architecture) = match self.network {
            Network::Bert(_) => (ModelKind::Embedding, "bert"),
            Network::Deberta(_) => (ModelKind::Classifier, "deberta-v2"),
            Network::CrossEncoder(_) => (ModelKind::Reranker, "bert"),
        };
        let told = [("engine", "candle"), ("architecture", architecture), ("state", "loaded")];
        let license = self.license.as_deref().map(|license| ("license", license));
        v1::Model {
            id: self.id.clone(),
            provider_id: provider_id.into(),
            provider_model_id: self.id.clone(),
            kind: kind.into(),
            context_length: u32::try_from(self.reader.max_tokens()).unwrap_or(u32::MAX),
            embedding_dimension: u32::try_from(self.dimension).unwrap_or(u32::MAX),
            labels: self.labels.clone(),
            created: Some(ids::now()),
            // Its weights are read before the stack serves, and stay.
            metadata: told.into_iter().chain(license).map(|(key, value)| (key.into(), value.into())).collect(),
        }
    }

    /// One batch: a vector per text, or its logits.
    ///
    /// # Errors
    /// `Internal` where candle fails, or where the result is not a number.
    pub(crate) fn compute(&self, batch: &[&Read]) -> Result<Vec<Vec<f32>>> {
        let computed = match &self.network {
            Network::Bert(bert) => bert.embed(batch),
            Network::Deberta(deberta) => deberta.logits(batch),
            Network::CrossEncoder(encoder) => encoder.logits(batch),
        };
        let rows = computed.map_err(|error| Error::internal(format!("model {:?} failed", self.id)).with_source(error))?;
        if !rows.iter().flatten().all(|value| value.is_finite()) {
            return Err(Error::internal(format!("model {:?} computed something that is not a number", self.id)));
        }
        Ok(rows)
    }
}
