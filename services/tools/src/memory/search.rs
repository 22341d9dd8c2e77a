//! A search as a tool's answer: a part for each passage, labelled with where it comes from.

use llama_stack_core::{Context, Memory, Result};
use llama_stack_proto::v1::{
    BankKind, Chunk, GetBankRequest, InvokeToolResponse, Part, QueryRequest, ScoredChunk, SearchMode, SearchResult, Value,
    value::Value as Is,
};
use serde_json::{Map, Value as Json};

use super::Config;
use crate::said;

pub(super) async fn search(
    memory: &dyn Memory,
    cx: &Context,
    tool: &str,
    text: String,
    bank_ids: Vec<String>,
    config: &Config,
) -> Result<InvokeToolResponse> {
    // Hybrid where each of them can be.
    let mut mode = SearchMode::Hybrid;
    for id in &bank_ids {
        let bank = memory.get_bank(cx, GetBankRequest::uncounted(id.as_str())).await?;
        if bank.kind() != BankKind::Vector || bank.embedding_model.is_empty() {
            mode = SearchMode::Keyword;
        }
    }
    let request =
        QueryRequest { bank_ids, text, mode: mode.into(), top_k: config.top_k, max_tokens: config.max_tokens, ..QueryRequest::default() };
    let found = memory.query(cx, request).await?.chunks;
    if found.is_empty() {
        return Ok(InvokeToolResponse { parts: vec![said(tool, "nothing was found")], ..InvokeToolResponse::default() });
    }
    let parts = found.iter().map(part).collect();
    Ok(InvokeToolResponse { parts, is_error: false, search_results: found.into_iter().map(result).collect() })
}

/// What the model reads of a passage.
fn part(scored: &ScoredChunk) -> Part {
    let chunk = scored.chunk.clone().unwrap_or_default();
    let page = chunk.position.as_ref().map_or(0, |position| position.page);
    let source = match (chunk.title.as_str(), page) {
        ("", _) => format!("Source: {}", chunk.document_id),
        (title, 0) => format!("Source: {title}"),
        (title, page) => format!("Source: {title}, page {page}"),
    };
    Part::text(format!("{source}\n{}", chunk.text)).with_provenance(provenance(&scored.bank_id, &chunk.document_id))
}

pub(super) fn provenance(bank: &str, document: &str) -> String {
    format!("retrieved:{bank}/{document}")
}

pub(super) fn result(scored: ScoredChunk) -> SearchResult {
    let Chunk { id, document_id, text, attributes, position, title, file_id, .. } = scored.chunk.unwrap_or_default();
    let json = |value: Value| match value.value {
        Some(Is::Text(text)) => Json::String(text),
        Some(Is::Number(number)) => serde_json::Number::from_f64(number).map_or(Json::Null, Json::Number),
        Some(Is::Boolean(boolean)) => Json::Bool(boolean),
        None => Json::Null,
    };
    let attributes: Map<String, Json> = attributes.into_iter().map(|(key, value)| (key, json(value))).collect();
    let mut result = SearchResult {
        bank_id: scored.bank_id,
        document_id,
        file_id,
        filename: title,
        score: scored.score,
        text,
        page: position.map_or(0, |position| position.page),
        chunk_id: id,
        ..SearchResult::default()
    };
    if !attributes.is_empty() {
        result.attributes = Json::Object(attributes).to_string();
    }
    result
}
