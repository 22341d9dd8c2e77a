//! `/v1/responses`: a Response is a turn, seen through the OpenAI API.
//!
//! ```text
//! request ── items ──> CreateTurn ──> TurnEvents ── transcript ──> SSE events
//!                                         └──────── response ────> the Response object
//! output: writes the items of a step; streamed or read back, they are the same
//! ```

mod items;
mod output;
mod request;
mod response;
mod transcript;

use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response as HttpResponse, sse::Event},
    routing::{get, post},
};
use futures::StreamExt;
use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{CancelTurnRequest, CreateTurnRequest, DeleteTurnRequest, GetTurnRequest, Turn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sse;
use crate::{
    http::{ApiError, AppState, Caller, Json},
    openapi::{Api, Operation},
};
use items::Item;
use request::CreateResponse;
use response::Response;

pub(super) fn routes(api: &mut Api) {
    let one = "/v1/responses/{id}";
    api.post(
        "/v1/responses",
        post(create),
        Operation::new("Begins a response: a turn that goes on until the model has answered.")
            .takes::<CreateResponse>()
            .returns::<Response>(),
    );
    api.get(one, get(retrieve).delete(delete), Operation::new("A response, as it stands.").returns::<Response>());
    api.describe(one, "delete", Operation::new("Deletes a response that has ended.").returns::<Deleted>());
    api.post("/v1/responses/{id}/cancel", post(cancel), Operation::new("Ends a response that runs.").returns::<Response>());
    api.get(
        "/v1/responses/{id}/input_items",
        get(input_items),
        Operation::new("What a response was given, newest first.").returns::<ItemList>(),
    );
}

async fn create(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<CreateResponse>) -> Result<HttpResponse, ApiError> {
    let stream = body.wants_stream();
    let previous = body.previous_response_id.clone();
    let mut turn = body.into_turn()?;
    if let Some(previous) = previous {
        follow(&state, &cx, &previous, &mut turn).await?;
    }
    let events = state.agents.create_turn(&cx, turn).await?;
    if !stream {
        return Ok(Json(Response::new(&transcript::whole(events).await?)).into_response());
    }
    // A JSON value can always be written.
    let events = transcript::lines(events).map(|(kind, data)| Event::default().event(kind).json_data(data).unwrap_or_default());
    Ok(sse::response(events))
}

/// The turn goes on where another ended.
async fn follow(state: &AppState, cx: &Context, previous: &str, turn: &mut CreateTurnRequest) -> Result<()> {
    let parent = find(state, cx, previous).await.map_err(|error| match error.code() {
        Code::NotFound => Error::not_found(format!("no response {previous:?} to continue"))
            .with_field("previous_response_id")
            .with_reason("previous_response_not_found"),
        _ => error,
    })?;
    turn.session_id = parent.session_id;
    turn.parent_turn_id = parent.id;
    Ok(())
}

async fn find(state: &AppState, cx: &Context, id: &str) -> Result<Turn> {
    let found = state.agents.get_turn(cx, GetTurnRequest { id: response::turn_id(id) }).await;
    found.map_err(|error| match error.code() {
        Code::NotFound => Error::not_found(format!("no response {id:?}")).with_reason("response_not_found"),
        _ => error,
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
struct RetrieveQuery {
    stream: Option<bool>,
}

async fn retrieve(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<RetrieveQuery>,
) -> Result<Json<Response>, ApiError> {
    if query.stream == Some(true) {
        return Err(Error::new(Code::Unimplemented, "a response cannot be streamed again yet; retrieve it without stream").into());
    }
    Ok(Json(Response::new(&find(&state, &cx, &id).await?)))
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
    Ok(Json(Response::new(&turn)))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ItemsQuery {
    /// 1 to 100. Default 20.
    limit: Option<usize>,
    /// `desc` (the default: newest first) or `asc`.
    order: Option<String>,
    /// The id of the item after which to go on.
    after: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ItemList {
    object: &'static str,
    data: Vec<Item>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

async fn input_items(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<ItemsQuery>,
) -> Result<Json<ItemList>, ApiError> {
    let turn = find(&state, &cx, &id).await?;
    Ok(Json(page(items::input(&turn.id, &turn.input), &query)?))
}

fn page(mut items: Vec<Item>, query: &ItemsQuery) -> Result<ItemList> {
    match query.order.as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(_) => return Err(Error::invalid("order", "order must be \"asc\" or \"desc\"")),
    }
    let limit = query.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Error::invalid("limit", format!("limit is {limit}; it must be 1 to 100")));
    }
    if let Some(after) = &query.after {
        let place = items.iter().position(|item| item.id() == after);
        let place = place.ok_or_else(|| Error::invalid("after", format!("no item {after:?} in this response's input")))?;
        items.drain(..=place);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&Item>| item.map(|item| item.id().to_owned());
    Ok(ItemList { object: "list", first_id: id(items.first()), last_id: id(items.last()), data: items, has_more })
}

#[cfg(test)]
mod tests;
