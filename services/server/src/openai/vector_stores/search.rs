//! Search in a vector store.

use axum::extract::State;
use futures::future::try_join_all;
use llama_stack_core::{Context, Error, Result, attributes};
use llama_stack_proto::v1::{ListModelsRequest, ModelKind, QueryRequest, QueryResponse, ScoredChunk, SearchMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    filters,
    ids::{find, no_store},
    ranking::{self, RankingOptions},
};
use crate::{
    history::of_page,
    http::{ApiError, AppState, Caller, Json, Path},
    openai::one_or_many::TextOr,
};

const DEFAULT_RESULTS: u32 = 10;
const MAX_RESULTS: u32 = 50;
const MAX_QUERIES: usize = 8;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "SearchVectorStore")]
pub(super) struct Search {
    /// A text, or up to eight.
    query: TextOr<String>,
    /// `{type: eq, key, value}` or `{type: and, filters}`.
    filters: Option<Value>,
    /// 1 to 50. Default 10.
    max_num_results: Option<u32>,
    ranking_options: Option<RankingOptions>,
    /// Let the stack's first chat model write the query anew. Default false.
    rewrite_query: Option<bool>,
    /// Not OpenAI's: `hybrid`, the default, `vector` or `keyword`.
    search_mode: Option<String>,
    /// `next_page` of the page before, which was asked for in the same words. For a `query` that is one text.
    page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreSearchResults")]
pub(super) struct Results {
    object: &'static str,
    /// What was searched for: as it was asked, or as the model wrote it.
    search_query: Value,
    data: Vec<Found>,
    has_more: bool,
    /// Of several queries there is one page.
    next_page: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreSearchResult")]
struct Found {
    file_id: String,
    filename: String,
    score: f32,
    attributes: Map<String, Value>,
    content: Vec<Text>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "VectorStoreSearchText")]
struct Text {
    r#type: &'static str,
    text: String,
}

impl From<ScoredChunk> for Found {
    fn from(scored: ScoredChunk) -> Self {
        let chunk = scored.chunk.unwrap_or_default();
        let text = Text { r#type: "text", text: chunk.text };
        let filename = if chunk.title.is_empty() { chunk.document_id.clone() } else { chunk.title };
        let file_id = if chunk.file_id.is_empty() { chunk.document_id } else { chunk.file_id };
        Self { file_id, filename, score: scored.score, attributes: attributes::to_json(&chunk.attributes), content: vec![text] }
    }
}

pub(super) async fn search(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<Search>,
) -> Result<Json<Results>, ApiError> {
    let one = matches!(body.query, TextOr::Text(_));
    let queries = body.query.clone().into_list();
    if queries.is_empty() || queries.len() > MAX_QUERIES || queries.iter().any(|query| query.trim().is_empty()) {
        return Err(Error::invalid("query", format!("query must be a text that is not empty, or 1 to {MAX_QUERIES} of them")).into());
    }
    let most = body.max_num_results.unwrap_or(DEFAULT_RESULTS);
    if !(1..=MAX_RESULTS).contains(&most) {
        return Err(Error::invalid("max_num_results", format!("max_num_results must be 1 to {MAX_RESULTS}, not {most}")).into());
    }
    if body.page.is_some() && queries.len() > 1 {
        return Err(Error::invalid("page", "what several queries find has one page: ask them one by one to read on").into());
    }
    let (ranker, score_threshold) = ranking::read("ranking_options", body.ranking_options.as_ref())?;
    let request = QueryRequest {
        mode: mode("search_mode", body.search_mode.as_deref())?.into(),
        filter: filters::read("filters", body.filters.as_ref())?,
        top_k: most,
        score_threshold,
        ranker,
        page_token: body.page.unwrap_or_default(),
        ..QueryRequest::default()
    };
    let bank = find(&state, &cx, &id).await?;
    let rewrite_model = if body.rewrite_query == Some(true) { first_chat_model(&state, &cx).await? } else { String::new() };
    let request = QueryRequest { bank_ids: vec![bank.id], rewrite_model, ..request };
    let asked = queries.iter().map(|text| state.memory.query(&cx, QueryRequest { text: text.clone(), ..request.clone() }));
    let mut answers = cx.within(try_join_all(asked)).await.map_err(|error| of_page(no_store(error, &id)))?;
    let next_page = match answers.as_mut_slice() {
        [answer] => Some(std::mem::take(&mut answer.next_page_token)).filter(|token| !token.is_empty()),
        _ => None,
    };
    let rewritten: Vec<String> = answers.iter().flat_map(|answer| answer.queries.clone()).collect();
    let mut said = if rewritten.is_empty() { queries } else { rewritten };
    let search_query = if one && said.len() == 1 { said.swap_remove(0).into() } else { said.into() };
    let data = QueryResponse::merged(answers, most as usize).into_iter().map(Found::from).collect();
    Ok(Json(Results { object: "vector_store.search_results.page", search_query, data, has_more: next_page.is_some(), next_page }))
}

/// # Errors
/// `InvalidArgument`
pub(crate) fn mode(field: &str, name: Option<&str>) -> Result<SearchMode> {
    match name {
        None | Some("hybrid") => Ok(SearchMode::Hybrid),
        Some("vector") => Ok(SearchMode::Vector),
        Some("keyword") => Ok(SearchMode::Keyword),
        Some(other) => Err(Error::invalid(field, format!("{field} must be hybrid, vector or keyword, not {other:?}"))),
    }
}

async fn first_chat_model(state: &AppState, cx: &Context) -> Result<String> {
    let models = state.inference.list_models(cx, ListModelsRequest::default()).await?.models;
    let chat = models.into_iter().find(|model| matches!(model.kind(), ModelKind::Chat | ModelKind::Unspecified));
    let none = || Error::failed_precondition("rewrite_query needs a chat model, and this stack has none").with_field("rewrite_query");
    chat.map(|model| model.id).ok_or_else(none)
}
