//! `/v1/conversations`: a Conversation is a session, and its items are those of its turns, in order.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    routing::{get, post},
};
use futures::StreamExt;
use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{
    CreateSessionRequest, CreateTurnRequest, DeleteSessionRequest, DeleteTurnRequest, GetSessionRequest, GetTurnRequest, ListTurnsRequest,
    Message, PartPlace, RedactTurnRequest, Session, Turn, TurnStatus, UpdateSessionRequest, part::Content, part_place,
    step::Step as StepKind, turn_event::Event,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::input_files;
use super::responses::{
    echo, input, items,
    items::{Item, Place},
    look_up, no_conversation,
    page::{ItemList, PageQuery, skip_past},
    response::{conversation_id, is_final, session_id},
    see, steps,
};
use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    journal,
    openapi::{Api, Operation, route},
};

/// Of items that come at once: the OpenAI API's bound.
const MAX_ITEMS: usize = 20;

pub(super) fn routes(api: &mut Api) {
    let (one, items, item) =
        (route!("/v1/conversations/{id}"), route!("/v1/conversations/{id}/items"), route!("/v1/conversations/{id}/items/{item_id}"));
    api.post(
        route!("/v1/conversations"),
        post(create).get(journal::list_sessions),
        Operation::new("Begins a conversation.").takes::<CreateConversation>().returns::<Conversation>(),
    );
    api.describe(route!("/v1/conversations"), "get", Operation::new("The conversations of the tenant.").returns::<journal::SessionList>());
    api.get(one, get(retrieve).post(update).delete(delete), Operation::new("A conversation.").returns::<Conversation>());
    api.describe(
        one,
        "post",
        Operation::new("Replaces a conversation's metadata.").takes::<UpdateConversation>().returns::<Conversation>(),
    );
    api.describe(one, "delete", Operation::new("Deletes a conversation with all its responses.").returns::<Deleted>());
    api.get(items, get(list).post(append), Operation::new("The items of a conversation, newest first.").returns::<ItemList>());
    api.describe(items, "post", Operation::new("Adds items; no model is asked.").takes::<AppendItems>().returns::<ItemList>());
    api.get(item, get(retrieve_item).delete(delete_item), Operation::new("One item.").returns::<Item>());
    api.describe(item, "delete", Operation::new("Takes an item out of a conversation.").returns::<Conversation>());
}

#[derive(Debug, Serialize, JsonSchema)]
struct Conversation {
    id: String,
    object: &'static str,
    created_at: i64,
    metadata: BTreeMap<String, String>,
}

impl From<Session> for Conversation {
    fn from(session: Session) -> Self {
        Self {
            id: conversation_id(&session.id),
            object: "conversation",
            created_at: ids::unix_seconds(session.created.as_ref()),
            metadata: session.metadata.into_iter().collect(),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CreateConversation {
    /// At most 20. More are added later.
    items: Option<Vec<Value>>,
    metadata: Option<BTreeMap<String, String>>,
}

async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CreateConversation>,
) -> Result<Json<Conversation>, ApiError> {
    // Read first, so that a conversation whose items are wrong is not begun.
    let messages = match body.items.filter(|items| !items.is_empty()) {
        Some(items) => read(&state, &cx, items, "").await?,
        None => Vec::new(),
    };
    let metadata = body.metadata.unwrap_or_default().into_iter().collect();
    let session = state.agents.create_session(&cx, CreateSessionRequest { metadata, ..CreateSessionRequest::default() }).await?;
    if !messages.is_empty()
        && let Err(error) = add(&state, &cx, &session.id, messages).await
    {
        state.agents.delete_session(&cx, DeleteSessionRequest { id: session.id }).await?;
        return Err(error.into());
    }
    Ok(Json(session.into()))
}

async fn retrieve(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Conversation>, ApiError> {
    Ok(Json(find(&state, &cx, &id).await?.into()))
}

async fn find(state: &AppState, cx: &Context, id: &str) -> Result<Session> {
    let session = state.agents.get_session(cx, GetSessionRequest { id: session_id(id) }).await;
    session.map_err(|error| no_conversation(error, id))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct UpdateConversation {
    metadata: Option<BTreeMap<String, String>>,
}

async fn update(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<UpdateConversation>,
) -> Result<Json<Conversation>, ApiError> {
    let session = find(&state, &cx, &id).await?;
    let metadata = body.metadata.unwrap_or_default().into_iter().collect();
    let request = UpdateSessionRequest { id: session.id, name: session.name, metadata };
    Ok(Json(state.agents.update_session(&cx, request).await?.into()))
}

#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let deleted = state.agents.delete_session(&cx, DeleteSessionRequest { id: session_id(&id) }).await;
    deleted.map_err(|error| no_conversation(error, &id))?;
    Ok(Json(Deleted { id, object: "conversation.deleted", deleted: true }))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct AppendItems {
    /// 1 to 20.
    items: Vec<Value>,
}

async fn append(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<AppendItems>,
) -> Result<Json<ItemList>, ApiError> {
    let session = find(&state, &cx, &id).await?;
    let messages = read(&state, &cx, body.items, &session.id).await?;
    let turn = add(&state, &cx, &session.id, messages).await?;
    Ok(Json(ItemList::new(items::input(&turn), usize::MAX)))
}

/// The messages that items are.
async fn read(state: &AppState, cx: &Context, mut items: Vec<Value>, session_id: &str) -> Result<Vec<Message>> {
    if items.len() > MAX_ITEMS {
        return Err(Error::invalid("items", format!("at most {MAX_ITEMS} items come at once, not {}", items.len())));
    }
    look_up(state, cx, "items", &mut items, (session_id, "")).await?;
    input_files::read(state, cx, "items", &mut items).await?;
    let given = input::read_items("items", &items)?;
    if !given.decisions.is_empty() {
        return Err(Error::invalid("items", "an mcp_approval_response goes into the input of a response, which carries it out"));
    }
    Ok(given.messages)
}

/// Adds messages to the session's history, and gives the turn that holds them.
async fn add(state: &AppState, cx: &Context, session_id: &str, input: Vec<Message>) -> Result<Turn> {
    let request = CreateTurnRequest { session_id: session_id.to_owned(), input, append_only: true, ..CreateTurnRequest::default() };
    let mut events = state.agents.create_turn(cx, request).await?;
    while let Some(event) = events.next().await {
        if let Some(Event::Ended(turn)) = event?.event {
            if turn.status() == TurnStatus::Incomplete {
                state.agents.delete_turn(cx, DeleteTurnRequest { id: turn.id }).await?;
                return Err(Error::invalid("items", "a shield did not let these items through").with_reason("content_filter"));
            }
            return Ok(*turn);
        }
    }
    Err(Error::unavailable("the items may not have been added: the turn broke off before it was done"))
}

/// The items of a turn, in order, without those whose words were taken out.
async fn of_turn(state: &AppState, cx: &Context, turn: Turn) -> Result<Vec<Item>> {
    let seen = see(state, cx, turn).await?;
    let mut all = items::input(&seen.turn);
    all.extend(steps::items(&seen.turn, &seen.approvals, is_final(seen.turn.status())));
    all.retain(|item| !item.is_empty_call());
    Ok(all)
}

async fn list(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<ItemList>, ApiError> {
    let asked = echo::asked(&pairs);
    let session = find(&state, &cx, &id).await?;
    let (limit, newest_first) = (query.limit()?, query.newest_first()?);
    let ordered = |mut items: Vec<Item>| {
        if newest_first {
            items.reverse();
        }
        items
    };
    let mut request = ListTurnsRequest { session_id: session.id.clone(), newest_first, ..ListTurnsRequest::default() };
    // A turn has two items or more: half a page of turns is a page of items.
    request.page_size = u32::try_from(limit / 2 + 1).unwrap_or(u32::MAX);
    let mut found = Vec::new();
    if let Some(after) = &query.after {
        let mut turn = turn_of(&state, &cx, &session.id, after).await.map_err(|error| error.with_field("after"))?;
        echo::include(&mut turn, &asked);
        request.after_turn_id.clone_from(&turn.id);
        found = ordered(of_turn(&state, &cx, turn).await?);
        skip_past(&mut found, after)?;
    }
    while found.len() <= limit {
        let turns = state.agents.list_turns(&cx, request.clone()).await?;
        for mut turn in turns.turns.into_iter().filter(|turn| turn.caller_turn_id.is_empty()) {
            echo::include(&mut turn, &asked);
            found.extend(ordered(of_turn(&state, &cx, turn).await?));
        }
        if turns.next_page_token.is_empty() {
            break;
        }
        (request.page_token, request.after_turn_id) = (turns.next_page_token, String::new());
    }
    Ok(Json(ItemList::new(found, limit)))
}

/// The turn of this session that has the item.
async fn turn_of(state: &AppState, cx: &Context, session_id: &str, item_id: &str) -> Result<Turn> {
    let missing = || Error::not_found(format!("no item {item_id:?} in this conversation")).with_reason("item_not_found");
    let place = Place::read(item_id).ok_or_else(missing)?;
    let turn = state.agents.get_turn(cx, GetTurnRequest { id: place.turn_id }).await;
    let turn = turn.map_err(|error| if error.code() == Code::NotFound { missing() } else { error })?;
    if turn.session_id == session_id { Ok(turn) } else { Err(missing()) }
}

async fn item_of(state: &AppState, cx: &Context, session_id: &str, item_id: &str, asked: &[String]) -> Result<(Turn, Item)> {
    let mut turn = turn_of(state, cx, session_id, item_id).await?;
    echo::include(&mut turn, asked);
    let found = of_turn(state, cx, turn.clone()).await?.into_iter().find(|item| item.id() == item_id);
    let missing = || Error::not_found(format!("no item {item_id:?} in this conversation")).with_reason("item_not_found");
    Ok((turn, found.ok_or_else(missing)?))
}

async fn retrieve_item(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, item_id)): Path<(String, String)>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Item>, ApiError> {
    let session = find(&state, &cx, &id).await?;
    Ok(Json(item_of(&state, &cx, &session.id, &item_id, &echo::asked(&pairs)).await?.1))
}

async fn delete_item(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path((id, item_id)): Path<(String, String)>,
) -> Result<Json<Conversation>, ApiError> {
    let session = find(&state, &cx, &id).await?;
    let (turn, _) = item_of(&state, &cx, &session.id, &item_id, &[]).await?;
    let parts = Place::read(&item_id).and_then(|place| parts_of(&turn, &place)).ok_or_else(|| {
        let message = format!("item {item_id:?} is not a part of the history that can be taken out");
        Error::failed_precondition(message).with_reason("item_not_deletable")
    })?;
    state.agents.redact_turn(&cx, RedactTurnRequest { turn_id: turn.id, parts }).await?;
    Ok(Json(session.into()))
}

/// The parts of a turn that an item is. `None` for an item that is none: a list of tools, a request for approval.
fn parts_of(turn: &Turn, place: &Place) -> Option<Vec<PartPlace>> {
    if place.section == 0 {
        let mut first = 0;
        for (index, message) in turn.input.iter().enumerate() {
            if let Some(part) = place.part.checked_sub(first).filter(|part| *part < message.parts.len()) {
                return places(message, part, part_place::Place::Input(u32::try_from(index).ok()?));
            }
            first += message.parts.len();
        }
        return None;
    }
    let index = place.section - 1;
    let step = part_place::Place::Step(u32::try_from(index).ok()?);
    match turn.steps.get(index)?.step.as_ref()? {
        StepKind::Inference(inference) => places(inference.message.as_ref()?, place.part, step),
        StepKind::Tool(tool) if !tool.client => Some(vec![PartPlace { place: Some(step), part: 0 }]),
        _ => None,
    }
}

/// As items are made of messages: texts and images in a row are one, and so is thinking in a row.
fn places(message: &Message, first: usize, place: part_place::Place) -> Option<Vec<PartPlace>> {
    let kind = |part: &llama_stack_proto::v1::Part| match &part.content {
        Some(Content::Text(_) | Content::Image(_) | Content::Refusal(_)) => 0,
        Some(Content::Reasoning(_)) => 1,
        Some(Content::ToolCall(_) | Content::ToolResult(_)) => 2,
        None => 3,
    };
    let of_first = kind(message.parts.get(first)?);
    let same = message.parts.iter().enumerate().skip(first).take_while(|(_, part)| kind(part) == of_first);
    let count = if of_first == 2 { 1 } else { usize::MAX };
    same.take(count).map(|(part, _)| Some(PartPlace { place: Some(place), part: u32::try_from(part).ok()? })).collect()
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{InferenceStep, Part, Role, Step, ToolCall, ToolResult, ToolStep};

    use super::*;

    fn turn() -> Turn {
        let call = ToolCall::new("call_1", "look", "{}");
        let said = vec![Part::new(Content::Reasoning("hm".into())), Part::text("see"), call.clone().into(), Part::text("well")];
        let inference = InferenceStep { message: Some(Message::new(Role::Assistant, said)), ..InferenceStep::default() };
        let tool = ToolStep { result: Some(ToolResult::text(&call, "a cat", false)), call: Some(call), ..ToolStep::default() };
        let kinds = [StepKind::Inference(inference), StepKind::Tool(tool)];
        let step = |(index, kind)| Step { index, step: Some(kind), ended: Some(ids::now()), ..Step::default() };
        Turn {
            id: "turn_0123456789abcdef0123456789abcdef".into(),
            input: vec![Message::user("one"), Message::new(Role::User, vec![Part::text("two"), Part::text("three")])],
            steps: (0..).zip(kinds).map(step).collect(),
            status: llama_stack_proto::v1::TurnStatus::Completed.into(),
            ..Turn::default()
        }
    }

    /// Every item can be found from its id, and is of other parts than the others.
    #[test]
    fn an_items_id_leads_to_its_parts() {
        let turn = turn();
        let mut all = items::input(&turn);
        all.extend(steps::items(&turn, &[], true));
        let kinds: Vec<&str> = all.iter().map(|item| item.id().split('_').next().unwrap()).collect();
        assert_eq!(kinds, ["msg", "msg", "rs", "msg", "msg", "mcp"]);
        let parts: Vec<Vec<PartPlace>> = all.iter().map(|item| parts_of(&turn, &Place::read(item.id()).unwrap()).unwrap()).collect();
        let counts: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 2, 1, 1, 1, 1]);
        let flat: Vec<PartPlace> = parts.into_iter().flatten().collect();
        assert!(flat.iter().enumerate().all(|(n, part)| !flat[..n].contains(part)), "{flat:?}");
    }

    #[test]
    fn what_is_no_items_id_leads_nowhere() {
        for id in ["", "msg_1", "msg_", "resp_0123456789abcdef0123456789abcdef", "msg_0123456789abcdef0123456789abcdeg00000000"] {
            assert_eq!(Place::read(id), None, "{id}");
        }
    }
}
