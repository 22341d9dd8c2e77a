//! A loaded model: what it is, and one batch through it.

use candle_core::{Device, Tensor};
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
    pub(crate) reader: Reader,
    pub(crate) network: Network,
    /// Padded tokens per batch.
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
        v1::Model {
            id: self.id.clone(),
            provider_id: provider_id.into(),
            provider_model_id: self.id.clone(),
            kind: kind.into(),
            context_length: u32::try_from(self.reader.max_tokens()).unwrap_or(u32::MAX),
            embedding_dimension: u32::try_from(self.dimension).unwrap_or(u32::MAX),
            labels: self.labels.clone(),
            created: Some(ids::now()),
            metadata: [("engine", "candle"), ("architecture", architecture)].map(|(key, value)| (key.into(), value.into())).into(),
        }
    }

    /// One batch: a vector per text, or its logits.
    ///
    /// # Errors
    /// `Internal` where candle fails, or where the result is not a number.
    pub(crate) fn compute(&self, batch: &[&Read]) -> Result<Vec<Vec<f32>>> {
        let computed = match &self.network {
            Network::Bert(bert) => bert.embed(&Padded::new(batch)),
            Network::Deberta(deberta) => deberta.logits(batch),
            Network::CrossEncoder(encoder) => encoder.logits(&Padded::new(batch)),
        };
        let rows = computed.map_err(|error| Error::internal(format!("model {:?} failed", self.id)).with_source(error))?;
        if !rows.iter().flatten().all(|value| value.is_finite()) {
            return Err(Error::internal(format!("model {:?} computed something that is not a number", self.id)));
        }
        Ok(rows)
    }
}

/// Texts of one batch, padded to the longest.
pub(crate) struct Padded {
    shape: (usize, usize),
    ids: Vec<u32>,
    types: Vec<u32>,
    mask: Vec<f32>,
}

impl Padded {
    /// The padding is token 0: it is masked wherever it is read.
    fn new(batch: &[&Read]) -> Self {
        let longest = batch.iter().map(|read| read.ids.len()).max().unwrap_or(0);
        let size = batch.len() * longest;
        let mut padded = Self {
            shape: (batch.len(), longest),
            ids: Vec::with_capacity(size),
            types: Vec::with_capacity(size),
            mask: Vec::with_capacity(size),
        };
        for (row, read) in batch.iter().enumerate() {
            let end = (row + 1) * longest;
            padded.ids.extend(&read.ids);
            padded.ids.resize(end, 0);
            padded.types.extend(&read.types);
            padded.types.resize(end, 0);
            padded.mask.resize(row * longest + read.ids.len(), 1.0);
            padded.mask.resize(end, 0.0);
        }
        padded
    }

    pub(crate) fn ids(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::from_slice(&self.ids, self.shape, device)
    }

    pub(crate) fn types(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::from_slice(&self.types, self.shape, device)
    }

    /// 1 for a token, 0 for padding.
    pub(crate) fn mask(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::from_slice(&self.mask, self.shape, device)
    }
}
