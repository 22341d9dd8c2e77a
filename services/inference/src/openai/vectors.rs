//! Embeddings and rankings.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use llama_stack_core::Result;
use llama_stack_proto::v1::{
    EmbedPurpose, EmbedRequest, EmbedResponse, Embedding, RerankRequest, RerankResponse, RerankResult, Truncation, Usage,
    embed_input::Input,
};

use super::{failure::Name, preset::Preset, request, wire::WireUsage};

#[derive(Serialize)]
struct EmbedBody<'a> {
    model: &'a str,
    input: Vec<WireInput<'a>>,
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    dimensions: u32,
    #[serde(skip_serializing_if = "is_zero")]
    output_dimension: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_type: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireInput<'a> {
    Text(&'a str),
    Tokens(&'a [u32]),
}

#[derive(Deserialize)]
struct Embedded {
    data: Vec<Vector>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Vector {
    index: Option<usize>,
    embedding: Values,
}

/// Numbers, or little-endian 32-bit floats in base64.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Float(Vec<f32>),
    Base64(String),
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// # Errors
/// `Unimplemented` for truncation: this API cannot say which inputs it cut.
pub(super) fn embed_body(name: &Name, preset: &Preset, model: &str, request: &EmbedRequest) -> Result<Bytes> {
    if request.truncation() == Truncation::End {
        return Err(name.lacks("truncation", "truncation that it reports"));
    }
    let input = request.inputs.iter().map(|input| match &input.input {
        Some(Input::Text(text)) => WireInput::Text(text),
        Some(Input::Tokens(tokens)) => WireInput::Tokens(&tokens.ids),
        None => WireInput::Text(""),
    });
    let purpose = if request.purpose() == EmbedPurpose::Query { "query" } else { "passage" };
    request::write(&EmbedBody {
        model,
        input: input.collect(),
        encoding_format: if preset.base64 { "base64" } else { "float" },
        dimensions: if preset.output_dimension { 0 } else { request.dimensions },
        output_dimension: if preset.output_dimension { request.dimensions } else { 0 },
        user: if preset.user { &request.user } else { "" },
        input_type: preset.input_type.then_some(purpose),
    })
}

/// # Errors
/// `Unavailable` for anything but one vector per input.
pub(super) fn embedded(name: &Name, model: String, inputs: usize, body: &[u8]) -> Result<EmbedResponse> {
    let answer: Embedded =
        serde_json::from_slice(body).map_err(|error| name.malformed("embeddings that cannot be read").with_source(error))?;
    let there = answer.data.len();
    let mut vectors = vec![None; inputs];
    for (position, vector) in answer.data.into_iter().enumerate() {
        if let Some(place) = vectors.get_mut(vector.index.unwrap_or(position)) {
            *place = Some(Embedding { values: vector.embedding.decode(name)? });
        }
    }
    let whole: Option<Vec<Embedding>> = if there == inputs { vectors.into_iter().collect() } else { None };
    let embeddings = whole.ok_or_else(|| name.malformed(format_args!("{there} embeddings for {inputs} inputs")))?;
    Ok(EmbedResponse { model, embeddings, usage: Some(answer.usage.map(Usage::from).unwrap_or_default()), truncated_inputs: 0 })
}

impl Values {
    fn decode(self, name: &Name) -> Result<Vec<f32>> {
        match self {
            Values::Float(values) => Ok(values),
            Values::Base64(text) => {
                let bytes = STANDARD.decode(text).map_err(|error| name.malformed("an embedding that is no base64").with_source(error))?;
                let (values, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(name.malformed(format_args!("an embedding of {} bytes, which is no number of floats", bytes.len())));
                }
                Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
        }
    }
}

/// The form of Jina and Cohere, which vLLM, NIM, llama.cpp and Together serve beside the OpenAI API.
#[derive(Serialize)]
struct RerankBody<'a> {
    model: &'a str,
    query: &'a str,
    documents: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    top_n: u32,
}

#[derive(Deserialize)]
struct Ranked {
    results: Vec<Rank>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Rank {
    index: u32,
    relevance_score: f32,
}

pub(super) fn rerank_body(model: &str, request: &RerankRequest) -> Result<Bytes> {
    request::write(&RerankBody { model, query: &request.query, documents: &request.documents, top_n: request.top_n })
}

/// # Errors
/// `Unavailable` for what is no ranking of these documents.
pub(super) fn ranked(name: &Name, documents: usize, body: &[u8]) -> Result<RerankResponse> {
    let answer: Ranked =
        serde_json::from_slice(body).map_err(|error| name.malformed("a ranking that cannot be read").with_source(error))?;
    let mut results: Vec<RerankResult> =
        answer.results.into_iter().map(|rank| RerankResult { index: rank.index, score: rank.relevance_score }).collect();
    if let Some(stray) = results.iter().find(|result| result.index as usize >= documents) {
        return Err(name.malformed(format_args!("a ranking of document {}, where there are {documents}", stray.index)));
    }
    results.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(RerankResponse { results, usage: Some(answer.usage.map(Usage::from).unwrap_or_default()) })
}
