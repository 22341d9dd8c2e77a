//! Which models there are: the configured ones, or what the upstream lists.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use llama_stack_core::Result;
use llama_stack_proto::v1::{Model, ModelKind};

use super::failure::Name;

/// A configured model: an id, or an id with what is known of it.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum ModelConfig {
    Id(String),
    Full(FullModelConfig),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullModelConfig {
    /// Its name in this stack.
    id: String,
    /// Its name at the upstream. Default: the same.
    #[serde(default)]
    upstream: String,
    /// Default: chat.
    #[serde(default)]
    kind: Kind,
    /// Tokens; 0 where it is not known.
    #[serde(default)]
    context_length: u32,
    /// Of an embedding model.
    #[serde(default)]
    embedding_dimension: u32,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Chat,
    Embedding,
    Classifier,
    Reranker,
}

impl From<ModelConfig> for Model {
    fn from(config: ModelConfig) -> Self {
        let config = match config {
            ModelConfig::Id(id) => {
                FullModelConfig { id, upstream: String::new(), kind: Kind::Chat, context_length: 0, embedding_dimension: 0 }
            }
            ModelConfig::Full(config) => config,
        };
        let kind = match config.kind {
            Kind::Chat => ModelKind::Chat,
            Kind::Embedding => ModelKind::Embedding,
            Kind::Classifier => ModelKind::Classifier,
            Kind::Reranker => ModelKind::Reranker,
        };
        Model {
            provider_model_id: if config.upstream.is_empty() { config.id.clone() } else { config.upstream },
            id: config.id,
            kind: kind.into(),
            context_length: config.context_length,
            embedding_dimension: config.embedding_dimension,
            ..Model::default()
        }
    }
}

/// The answer of `GET /models`; some send the bare list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Wrapped { data: Vec<Entry> },
    Bare(Vec<Entry>),
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    created: Option<Value>,
    owned_by: Option<Value>,
    /// Together's word for the kind.
    #[serde(rename = "type")]
    kind: Option<Value>,
    /// vLLM · OpenRouter, Together · Mistral · Groq.
    max_model_len: Option<Value>,
    context_length: Option<Value>,
    max_context_length: Option<Value>,
    context_window: Option<Value>,
}

/// # Errors
/// `Unavailable` for what is no list of models.
pub(super) fn listed(name: &Name, body: &[u8]) -> Result<Vec<Model>> {
    let listed: Listed =
        serde_json::from_slice(body).map_err(|error| name.malformed("a list of models without models").with_source(error))?;
    let (Listed::Wrapped { data } | Listed::Bare(data)) = listed;
    Ok(data.into_iter().map(Model::from).collect())
}

impl From<Entry> for Model {
    fn from(entry: Entry) -> Self {
        let lengths = [entry.max_model_len, entry.context_length, entry.max_context_length, entry.context_window];
        let length = lengths.into_iter().flatten().find_map(|length| length.as_u64()).unwrap_or_default();
        let kind = match entry.kind.as_ref().and_then(Value::as_str) {
            Some("chat") => ModelKind::Chat,
            Some("embedding") => ModelKind::Embedding,
            Some("rerank") => ModelKind::Reranker,
            _ => ModelKind::Unspecified,
        };
        let owner = entry.owned_by.as_ref().and_then(Value::as_str).filter(|owner| !owner.is_empty());
        let metadata: BTreeMap<_, _> = owner.map(|owner| ("owned_by".to_owned(), owner.to_owned())).into_iter().collect();
        Model {
            provider_model_id: entry.id.clone(),
            id: entry.id,
            kind: kind.into(),
            context_length: u32::try_from(length).unwrap_or(u32::MAX),
            created: entry.created.and_then(|created| created.as_i64()).map(|seconds| Timestamp { seconds, nanos: 0 }),
            metadata: metadata.into_iter().collect(),
            ..Model::default()
        }
    }
}
