//! `/v1/rerank`, in the form that Cohere, Jina and others share: a view of `Inference.Rerank`.

use axum::{extract::State, routing::post};
use llama_stack_core::{Error, Result, ids};
use llama_stack_proto::v1::{RerankRequest, RerankResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http::{ApiError, AppState, Caller, Json},
    openapi::{Api, Operation, route},
};

const MAX_DOCUMENTS: usize = 2_048;

pub(super) fn routes(api: &mut Api) {
    let operation = Operation::new("Orders documents by how well they answer a query.");
    api.post(route!("/v1/rerank"), post(rerank), operation.takes::<Rerank>().returns::<Reranked>());
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Rerank {
    model: String,
    query: String,
    /// 1 to 2,048: texts, or `{text}`.
    documents: Vec<Given>,
    /// How many results there are. Default: all.
    top_n: Option<u32>,
    /// Put each document's text beside its score. Default false.
    return_documents: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a document must be a text or {\"text\": …}")]
enum Given {
    Text(String),
    Object { text: String },
}

#[derive(Debug, Serialize, JsonSchema)]
struct Reranked {
    id: String,
    object: &'static str,
    model: String,
    /// Best first.
    results: Vec<Ranked>,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Ranked {
    /// Into `documents`.
    index: u32,
    /// 0 to 1, higher is better; comparable only within one answer.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<RankedDocument>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RankedDocument {
    text: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RerankUsage")]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

async fn rerank(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<Rerank>) -> Result<Json<Reranked>, ApiError> {
    let count = body.documents.len();
    if count == 0 || count > MAX_DOCUMENTS {
        return Err(Error::invalid("documents", format!("documents must hold 1 to {MAX_DOCUMENTS} texts, not {count}")).into());
    }
    if body.query.trim().is_empty() {
        return Err(Error::invalid("query", "query must not be empty").into());
    }
    if body.top_n == Some(0) {
        return Err(Error::invalid("top_n", "top_n must be at least 1").into());
    }
    let texts = body.documents.into_iter().map(|given| match given {
        Given::Text(text) | Given::Object { text } => text,
    });
    let documents: Vec<String> = texts.collect();
    let kept = if body.return_documents == Some(true) { documents.clone() } else { Vec::new() };
    let request = RerankRequest { model: body.model.clone(), query: body.query, documents, top_n: body.top_n.unwrap_or_default() };
    let answer = cx.within(state.inference.rerank(&cx, request)).await?;
    Ok(Json(Reranked::new(answer, body.model, &kept)))
}

impl Reranked {
    fn new(answer: RerankResponse, model: String, kept: &[String]) -> Self {
        let tokens = answer.usage.unwrap_or_default().prompt_tokens;
        let ranked = answer.results.into_iter().map(|result| Ranked {
            index: result.index,
            relevance_score: result.score,
            document: kept.get(result.index as usize).map(|text| RankedDocument { text: text.clone() }),
        });
        Self {
            id: ids::new("rerank"),
            object: "list",
            model,
            results: ranked.collect(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}
