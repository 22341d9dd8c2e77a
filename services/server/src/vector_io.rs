//! `/v1/vector-io`: chunks of a bank, as Llama Stack's own API has them. A view of `InsertChunks` and `Query`.

use std::collections::BTreeMap;

use axum::{extract::State, routing::post};
use llama_stack_core::{Code, Error, Result, attributes, ids};
use llama_stack_proto::v1::{Chunk, Document, InsertChunksRequest, QueryRequest, Ranker, ScoredChunk, ranker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    http::{ApiError, AppState, Caller, Json},
    openai::vector_stores::{bank_id, filters, mode},
    openapi::{Api, Operation, route},
};

/// Chunks of one request.
const MAX_CHUNKS: usize = 10_000;
const DEFAULT_RESULTS: u32 = 10;
const MAX_RESULTS: u32 = 1_000;
/// Ten years.
const MAX_TTL: u64 = 315_360_000;

pub(crate) fn routes(api: &mut Api) {
    let operation = Operation::new("Stores chunks, with their vectors or to be embedded here; one whose id is there is replaced.");
    api.post(route!("/v1/vector-io/insert"), post(insert), operation.takes::<Insert>().returns::<Inserted>());
    let operation = Operation::new("Searches a bank for chunks.");
    api.post(route!("/v1/vector-io/query"), post(query), operation.takes::<Search>().returns::<Found>());
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "InsertChunks")]
struct Insert {
    /// A bank, or a vector store.
    #[serde(alias = "vector_store_id")]
    vector_db_id: String,
    chunks: Vec<GivenChunk>,
    /// After these many seconds the chunks' documents are deleted, those that this call makes. Left out: they stay.
    ttl_seconds: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct GivenChunk {
    /// A text, or a list of `{type: text, text}`.
    content: Value,
    /// Texts, numbers and truth values, for filters. `document_id` says which document the chunk is of.
    metadata: Option<Map<String, Value>>,
    /// Left out: the text is embedded here.
    embedding: Option<Vec<f32>>,
    /// Left out: made here.
    #[serde(alias = "stored_chunk_id")]
    chunk_id: Option<String>,
    /// What Llama Stack's clients say of a chunk besides. Counts where `metadata` says nothing of it.
    chunk_metadata: Option<ChunkMetadata>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct ChunkMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    document_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_id: Option<String>,
    /// Shown as the document's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChunksInserted")]
struct Inserted {
    inserted: usize,
    chunk_ids: Vec<String>,
}

async fn insert(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<Insert>) -> Result<Json<Inserted>, ApiError> {
    if body.chunks.is_empty() || body.chunks.len() > MAX_CHUNKS {
        return Err(Error::invalid("chunks", format!("chunks must hold 1 to {MAX_CHUNKS} chunks, not {}", body.chunks.len())).into());
    }
    let chunks = body.chunks.into_iter().enumerate().map(|(index, given)| given.read(&format!("chunks[{index}]")));
    let chunks: Vec<Chunk> = chunks.collect::<Result<_>>()?;
    let chunk_ids: Vec<String> = chunks.iter().map(|chunk| chunk.id.clone()).collect();
    let documents = body.ttl_seconds.map(|seconds| expiring(&chunks, seconds)).transpose()?.unwrap_or_default();
    let request = InsertChunksRequest { bank_id: bank_id(&body.vector_db_id), chunks, documents, ..InsertChunksRequest::default() };
    let answer = cx.within(state.memory.insert_chunks(&cx, request)).await.map_err(|error| no_bank(error, &body.vector_db_id))?;
    if let Some(failure) = answer.failures.first() {
        let why = failure.error.clone().unwrap_or_default();
        let (failed, all, field) = (answer.failures.len(), chunk_ids.len(), format!("chunks[{}]", failure.index));
        let message = format!("{failed} of {all} chunks were not stored, the others were; {field}: {}", why.message);
        return Err(Error::new(Code::from_name(&why.code), message).with_field(field).into());
    }
    Ok(Json(Inserted { inserted: chunk_ids.len(), chunk_ids }))
}

/// The documents of these chunks, with an end.
fn expiring(chunks: &[Chunk], seconds: u64) -> Result<Vec<Document>> {
    if !(1..=MAX_TTL).contains(&seconds) {
        return Err(Error::invalid("ttl_seconds", format!("ttl_seconds must be 1 to {MAX_TTL}, not {seconds}")));
    }
    let mut expires = ids::now();
    expires.seconds = expires.seconds.saturating_add_unsigned(seconds);
    let mut documents: BTreeMap<&str, Document> = BTreeMap::new();
    for chunk in chunks {
        documents.entry(&chunk.document_id).or_insert_with(|| Document {
            id: chunk.document_id.clone(),
            title: chunk.title.clone(),
            attributes: chunk.attributes.clone(),
            expires: Some(expires),
            ..Document::default()
        });
    }
    Ok(documents.into_values().collect())
}

impl GivenChunk {
    fn read(self, field: &str) -> Result<Chunk> {
        let text = text(&format!("{field}.content"), &self.content)?;
        if text.trim().is_empty() {
            return Err(Error::invalid(format!("{field}.content"), "a chunk needs a text"));
        }
        let (metadata, besides) = (self.metadata.unwrap_or_default(), self.chunk_metadata.unwrap_or_default());
        let document_id = match metadata.get("document_id") {
            None | Some(Value::Null) => besides.document_id.unwrap_or_default(),
            Some(Value::String(id)) => id.clone(),
            Some(_) => return Err(Error::invalid(format!("{field}.metadata.document_id"), "document_id must be a text")),
        };
        let given = |id: Option<String>| id.filter(|id| !id.is_empty());
        let id = given(self.chunk_id).or_else(|| given(besides.chunk_id)).unwrap_or_else(|| ids::new("chunk"));
        let title = metadata.get("title").or_else(|| metadata.get("filename")).and_then(Value::as_str).map(str::to_owned);
        Ok(Chunk {
            // A chunk of no document is one of its own.
            document_id: if document_id.is_empty() { id.clone() } else { document_id },
            title: title.or(besides.source).unwrap_or_default(),
            attributes: attributes::from_json(&format!("{field}.metadata"), &metadata)?,
            vector: self.embedding.unwrap_or_default(),
            id,
            text,
            ..Chunk::default()
        })
    }
}

/// A text, one content item, or a list of them.
fn text(field: &str, content: &Value) -> Result<String> {
    let wrong = || Error::invalid(field, format!("{field} must be a text, or a list of {{\"type\": \"text\", \"text\": …}}"));
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(items) => items.iter().map(|item| text(field, item)).collect(),
        Value::Object(item) => item.get("text").and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong),
        Value::Null | Value::Bool(_) | Value::Number(_) => Err(wrong()),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "QueryChunks")]
struct Search {
    #[serde(alias = "vector_store_id")]
    vector_db_id: String,
    /// A text, or a list of `{type: text, text}`.
    query: Value,
    params: Option<Params>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "QueryChunksParams")]
struct Params {
    /// 1 to 1,000. Default 10.
    #[serde(alias = "max_chunks", alias = "k", alias = "max_num_results")]
    top_k: Option<u32>,
    score_threshold: Option<f32>,
    /// `hybrid`, `vector` or `keyword`. Default: as Llama Stack, `vector`.
    mode: Option<String>,
    /// `{type: rrf}`, or `{type: weighted, alpha}`, where `alpha` is the weight of the vectors.
    ranker: Option<GivenRanker>,
    filters: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "QueryChunksRanker")]
struct GivenRanker {
    r#type: String,
    alpha: Option<f32>,
    /// For `rerank`.
    model: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChunksFound")]
struct Found {
    /// Best first.
    chunks: Vec<FoundChunk>,
    /// One for each chunk.
    scores: Vec<f32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FoundChunk {
    content: String,
    chunk_id: String,
    metadata: Map<String, Value>,
    chunk_metadata: ChunkMetadata,
}

async fn query(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<Search>) -> Result<Json<Found>, ApiError> {
    let text = text("query", &body.query)?;
    if text.trim().is_empty() {
        return Err(Error::invalid("query", "query must not be empty").into());
    }
    let params = body.params.unwrap_or_default();
    let top_k = params.top_k.unwrap_or(DEFAULT_RESULTS);
    if !(1..=MAX_RESULTS).contains(&top_k) {
        return Err(Error::invalid("params.top_k", format!("params.top_k must be 1 to {MAX_RESULTS}, not {top_k}")).into());
    }
    let request = QueryRequest {
        bank_ids: vec![bank_id(&body.vector_db_id)],
        text,
        mode: mode("params.mode", params.mode.as_deref().or(Some("vector")))?.into(),
        filter: filters::read("params.filters", params.filters.as_ref())?,
        top_k,
        score_threshold: params.score_threshold,
        ranker: params.ranker.map(ranker).transpose()?,
        ..QueryRequest::default()
    };
    let answer = cx.within(state.memory.query(&cx, request)).await.map_err(|error| no_bank(error, &body.vector_db_id))?;
    let (chunks, scores) = answer.chunks.into_iter().map(found).unzip();
    Ok(Json(Found { chunks, scores }))
}

fn ranker(given: GivenRanker) -> Result<Ranker> {
    let kind = match given.r#type.as_str() {
        "rrf" => ranker::Kind::Rrf,
        "weighted" => ranker::Kind::Weighted,
        "rerank" => ranker::Kind::Rerank,
        other => return Err(Error::invalid("params.ranker.type", format!("a ranker is rrf, weighted or rerank, not {other:?}"))),
    };
    if given.alpha.is_some_and(|alpha| !(0.0..=1.0).contains(&alpha)) {
        return Err(Error::invalid("params.ranker.alpha", "alpha must be 0 to 1"));
    }
    Ok(Ranker { kind: kind.into(), vector_weight: given.alpha, model: given.model.unwrap_or_default() })
}

fn found(scored: ScoredChunk) -> (FoundChunk, f32) {
    let chunk = scored.chunk.unwrap_or_default();
    let mut metadata = attributes::to_json(&chunk.attributes);
    metadata.insert("document_id".into(), json!(chunk.document_id));
    let chunk_metadata = ChunkMetadata {
        document_id: Some(chunk.document_id),
        chunk_id: Some(chunk.id.clone()),
        source: Some(chunk.title).filter(|title| !title.is_empty()),
    };
    (FoundChunk { content: chunk.text, chunk_id: chunk.id, metadata, chunk_metadata }, scored.score)
}

fn no_bank(error: Error, id: &str) -> Error {
    let bank = error.code() == Code::NotFound && error.reason().is_none_or(|reason| reason == "bank_not_found");
    if bank { Error::not_found(format!("no bank {id:?}")).with_reason("bank_not_found").with_field("vector_db_id") } else { error }
}
