//! `/v1/responses`: a Response is a turn, seen through the OpenAI API.
//!
//! ```text
//! request ── input, tools, begin ──> CreateTurn ──> TurnEvents ── transcript ──> SSE events
//!                                                       └──────── response ────> the Response object
//! steps: which step is which item ── output: the items of what a model says ── pieces: how it came
//! ```
//!
//! Streamed or read back, items go through the same code, so they are the same.

mod begin;
mod compaction;
pub(super) mod echo;
pub(crate) mod guardrails;
pub(super) mod input;
mod input_tokens;
pub(super) mod items;
mod lineage;
mod namespaces;
mod output;
pub(super) mod page;
mod pieces;
mod repeated;
pub(crate) mod request;
pub(crate) mod response;
pub(super) mod steps;
pub(crate) mod tools;
mod transcript;

use axum::{
    extract::State,
    response::{IntoResponse, Response as HttpResponse, sse::Event},
    routing::{get, post},
};
use futures::{Stream, StreamExt};
use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{
    ApprovalRequest, CancelTurnRequest, DeleteTurnRequest, GetTurnRequest, ListTurnsRequest, Turn, TurnEvent, TurnStatus, WatchTurnRequest,
    turn_event::Event as Happened,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sse;
use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};
use page::{ItemList, PageQuery};
use request::CreateResponse;
use response::Response;

pub(super) use begin::look_up;
pub(crate) use begin::no_conversation;

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/responses"), route!("/v1/responses/{id}"));
    api.post(
        all,
        post(create).get(list),
        Operation::new("Begins a response: a turn that goes on until the model has answered.")
            .takes::<CreateResponse>()
            .returns::<Response>(),
    );
    api.describe(all, "get", Operation::new("Responses, newest first.").returns::<ResponseList>());
    api.get(
        one,
        get(retrieve).delete(delete),
        Operation::new("A response, as it stands; with `stream=true` its events, after `starting_after`.").returns::<Response>(),
    );
    api.describe(one, "delete", Operation::new("Deletes a response that has ended.").returns::<Deleted>());
    api.post(route!("/v1/responses/{id}/cancel"), post(cancel), Operation::new("Ends a response that runs.").returns::<Response>());
    api.get(
        route!("/v1/responses/{id}/input_items"),
        get(input_items),
        Operation::new("What a response was given, newest first.").returns::<ItemList>(),
    );
    api.post(
        route!("/v1/responses/input_tokens"),
        post(input_tokens::count),
        Operation::new("Counts the tokens of an input, by the model's own tokenizer.")
            .takes::<CreateResponse>()
            .returns::<input_tokens::CountedTokens>(),
    );
    api.post(
        route!("/v1/responses/compact"),
        post(compaction::compact),
        Operation::new("Summarises a history.").takes::<compaction::CompactHistory>().returns::<compaction::Compacted>(),
    );
}

async fn create(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<CreateResponse>) -> Result<HttpResponse, ApiError> {
    let (stream, background) = (body.wants_stream(), body.in_background());
    let kinds = tools::kinds(body.tools.as_deref().unwrap_or_default());
    let turn = begin::turn(&state, &cx, body).await?;
    let events = state.agents.create_turn(&cx, turn).await.map_err(|error| renamed(error, &kinds))?;
    if stream {
        return Ok(streamed(transcript::lines(events, None)));
    }
    let response = if background { transcript::begun(events).await? } else { transcript::whole(events).await? };
    Ok(Json(response).into_response())
}

fn streamed(lines: impl Stream<Item = transcript::Line> + Send + 'static) -> HttpResponse {
    // A JSON value can always be written.
    sse::response(lines.map(|(kind, data)| Event::default().event(kind).json_data(data).unwrap_or_default()))
}

/// The runtime names fields of a turn; the client knows those of its request, and its tools, which are of these kinds.
fn renamed(error: Error, kinds: &[(String, String)]) -> Error {
    // Items in a row may be one message: which of them it was is not known here.
    if error.field().is_some_and(|field| field.starts_with("input[") && field.contains("].parts")) {
        return error.with_field("input");
    }
    let field = error.field().and_then(|field| field.strip_prefix("config.")).map(|field| {
        let field = field.strip_prefix("sampling.").unwrap_or(field);
        if field.contains("_shields[") {
            return "guardrails".to_owned();
        }
        if let Some(field) = field.strip_prefix("file_search.") {
            let field = field.replacen("bank_ids", "vector_store_ids", 1).replacen("max_results", "max_num_results", 1);
            let tool = kinds.iter().find(|(kind, _)| kind == steps::FILE_SEARCH);
            return tool.map_or(field.clone(), |(_, place)| format!("{place}.{field}"));
        }
        tools::place(field, kinds).unwrap_or_else(|| field.replacen("response_format.json_schema", "text.format", 1))
    });
    match field {
        Some(field) if field.contains("vector_store_ids") && error.reason() == Some("bank_not_found") => {
            let message = "a vector store that file_search names is not there";
            Error::not_found(message).with_reason("vector_store_not_found").with_field(field)
        }
        Some(field) => error.with_field(field),
        None => error,
    }
}

/// A turn, with what it waits for.
pub(super) struct Seen {
    pub(super) turn: Turn,
    pub(super) approvals: Vec<ApprovalRequest>,
}

/// # Errors
/// `NotFound`
async fn find(state: &AppState, cx: &Context, id: &str) -> Result<Turn> {
    let found = state.agents.get_turn(cx, GetTurnRequest { id: response::turn_id(id) }).await;
    found.map_err(|error| match error.code() {
        Code::NotFound => Error::not_found(format!("no response {id:?}")).with_reason("response_not_found"),
        _ => error,
    })
}

/// # Errors
/// `NotFound`
async fn find_seen(state: &AppState, cx: &Context, id: &str) -> Result<Seen> {
    see(state, cx, find(state, cx, id).await?).await
}

/// Looks into the journal of a turn that waits.
pub(super) async fn see(state: &AppState, cx: &Context, turn: Turn) -> Result<Seen> {
    let mut approvals = Vec::new();
    if turn.status() == TurnStatus::AwaitingTools {
        let watch = WatchTurnRequest { turn_id: turn.id.clone(), after_sequence: 0 };
        approvals = transcript::approvals(&turn, state.agents.watch_turn(cx, watch).await?).await?;
    }
    Ok(Seen { turn, approvals })
}

#[derive(Debug, Deserialize, JsonSchema)]
struct RetrieveQuery {
    stream: Option<bool>,
    /// With `stream`: only events with greater numbers.
    starting_after: Option<u64>,
}

/// With `stream`, any number of clients may watch, and going away ends nothing but the watching.
async fn retrieve(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<RetrieveQuery>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<HttpResponse, ApiError> {
    if query.stream != Some(true) {
        if query.starting_after.is_some() {
            return Err(Error::invalid("starting_after", "starting_after is only for stream=true").into());
        }
        let mut seen = find_seen(&state, &cx, &id).await?;
        echo::include(&mut seen.turn, &echo::asked(&pairs));
        return Ok(Json(Response::new(&seen.turn, &seen.approvals)).into_response());
    }
    let turn = find(&state, &cx, &id).await?;
    let events = state.agents.watch_turn(&cx, WatchTurnRequest { turn_id: turn.id, after_sequence: 0 }).await?;
    let asked = echo::asked(&pairs);
    let events = events.map(move |mut event| {
        if let Ok(TurnEvent { event: Some(Happened::Created(turn) | Happened::Ended(turn)), .. }) = &mut event {
            echo::include(turn, &asked);
        }
        event
    });
    Ok(streamed(transcript::lines(events.boxed(), query.starting_after)))
}

#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let turn = find(&state, &cx, &id).await?;
    state.agents.delete_turn(&cx, DeleteTurnRequest { id: turn.id }).await?;
    Ok(Json(Deleted { id, object: "response", deleted: true }))
}

/// Ends a response that runs. One that has ended stays as it is.
async fn cancel(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Response>, ApiError> {
    let turn = find(&state, &cx, &id).await?;
    let turn = state.agents.cancel_turn(&cx, CancelTurnRequest { id: turn.id }).await?;
    Ok(Json(Response::new(&turn, &[])))
}

async fn input_items(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<ItemList>, ApiError> {
    let mut items = items::input(&find(&state, &cx, &id).await?);
    if query.newest_first()? {
        items.reverse();
    }
    if let Some(after) = &query.after {
        page::skip_past(&mut items, after)?;
    }
    Ok(Json(ItemList::new(items, query.limit()?)))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    /// Only those of this model.
    model: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
    after: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ResponseList {
    object: &'static str,
    data: Vec<Response>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// Not OpenAI's: every response of the tenant.
async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<ListQuery>) -> Result<Json<ResponseList>, ApiError> {
    let page = PageQuery { limit: query.limit, order: query.order, after: query.after };
    let (limit, newest_first) = (page.limit()?, page.newest_first()?);
    let after_turn_id = page.after.as_deref().map(response::turn_id).unwrap_or_default();
    let page_size = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut request = ListTurnsRequest { newest_first, after_turn_id, page_size, ..ListTurnsRequest::default() };
    let mut data = Vec::new();
    loop {
        let turns = state.agents.list_turns(&cx, request.clone()).await?;
        for turn in turns.turns {
            let of_model = query.model.as_ref().is_none_or(|model| turn.config.as_ref().is_some_and(|config| config.model == *model));
            // What was added by hand is no response, nor is what one agent asked another.
            if of_model && !turn.append_only && turn.caller_turn_id.is_empty() {
                let seen = see(&state, &cx, turn).await?;
                data.push(Response::new(&seen.turn, &seen.approvals));
            }
        }
        if turns.next_page_token.is_empty() || data.len() > limit {
            break;
        }
        (request.page_token, request.after_turn_id) = (turns.next_page_token, String::new());
    }
    let has_more = data.len() > limit;
    data.truncate(limit);
    let id = |response: Option<&Response>| response.map(|response| response.id.clone());
    Ok(Json(ResponseList { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more }))
}

#[cfg(test)]
mod tests;
