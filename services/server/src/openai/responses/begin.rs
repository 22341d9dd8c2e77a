//! Where a new response belongs, and what its request refers to.

use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{CreateTurnRequest, GetSessionRequest};
use serde_json::{Value, json};

use super::{
    find, find_seen,
    input::{Input, kind, text},
    items::{self, Place},
    lineage::Lineage,
    repeated,
    request::CreateResponse,
    response, steps,
};
use crate::{
    http::AppState,
    openai::{input_files, prompts},
};

/// The turn that a request asks for.
///
/// # Errors
/// `InvalidArgument`, with the path of the field · `NotFound` for what it refers to (`previous_response_not_found`,
/// `conversation_not_found`, `item_not_found`, `prompt_not_found`) · `Unimplemented`
pub(super) async fn turn(state: &AppState, cx: &Context, mut body: CreateResponse) -> Result<CreateTurnRequest> {
    body.check()?;
    let (session_id, parent_turn_id) = place(state, cx, &body).await?;
    if let Some(Input::Items(given)) = &mut body.input {
        look_up(state, cx, "input", given, (&session_id, &parent_turn_id)).await?;
        input_files::read(state, cx, "input", given).await?;
        repeated::leave_out(state, cx, given, &session_id, &parent_turn_id).await?;
    }
    let mut told = String::new();
    if let Some(reference) = body.prompt.take() {
        let filled = prompts::fill(state, cx, reference).await?;
        body.instructions = Some(match body.instructions.take() {
            Some(more) if !more.is_empty() => format!("{}\n\n{more}", filled.text),
            _ => filled.text,
        });
        told = filled.reference;
    }
    let mut turn = body.into_turn()?;
    (turn.session_id, turn.parent_turn_id, turn.prompt) = (session_id, parent_turn_id, told);
    Ok(turn)
}

/// The session, and the turn whose history goes on; empty where there is none.
async fn place(state: &AppState, cx: &Context, body: &CreateResponse) -> Result<(String, String)> {
    let conversation = body.conversation.as_ref().filter(|conversation| !conversation.is_null());
    match (&body.previous_response_id, conversation) {
        (Some(_), Some(_)) => {
            Err(Error::invalid("conversation", "a response follows a previous_response_id or is in a conversation, not both"))
        }
        (Some(previous), None) => {
            let parent = find(state, cx, previous).await.map_err(|error| match error.code() {
                Code::NotFound => Error::not_found(format!("no response {previous:?} to continue"))
                    .with_field("previous_response_id")
                    .with_reason("previous_response_not_found"),
                _ => error,
            })?;
            Ok((parent.session_id, parent.id))
        }
        (None, Some(conversation)) => {
            let id = conversation.as_str().or_else(|| conversation.get("id")?.as_str());
            let id = id.ok_or_else(|| Error::invalid("conversation", "conversation must be an id, or {\"id\": …}"))?;
            let session = state.agents.get_session(cx, GetSessionRequest { id: response::session_id(id) }).await;
            let session = session.map_err(|error| no_conversation(error, id).with_field("conversation"))?;
            Ok((session.id, String::new()))
        }
        (None, None) => Ok((String::new(), String::new())),
    }
}

pub(crate) fn no_conversation(error: Error, id: &str) -> Error {
    match error.code() {
        Code::NotFound => Error::not_found(format!("no conversation {id:?}")).with_reason("conversation_not_found"),
        _ => error,
    }
}

/// Puts items in the place of references to them. What the history holds already, of the session after this turn or else its last, needs no
/// second mention.
pub(crate) async fn look_up(
    state: &AppState,
    cx: &Context,
    field: &str,
    given: &mut Vec<Value>,
    (session_id, parent_id): (&str, &str),
) -> Result<()> {
    let mut lineage = Lineage::new(session_id, parent_id);
    let mut whole = Vec::with_capacity(given.len());
    for (index, item) in std::mem::take(given).into_iter().enumerate() {
        if kind(&item) != "item_reference" {
            whole.push(item);
            continue;
        }
        let field = format!("{field}[{index}]");
        let id = text(&field, &item, "id")?;
        let missing = || Error::not_found(format!("no item {id:?}")).with_field(format!("{field}.id")).with_reason("item_not_found");
        let place = Place::read(&id).ok_or_else(missing)?;
        let seen = find_seen(state, cx, &place.turn_id).await.map_err(|error| match error.code() {
            Code::NotFound => missing(),
            _ => error,
        })?;
        let ended = response::is_final(seen.turn.status());
        let mut all = items::input(&seen.turn).into_iter().chain(steps::items(&seen.turn, &seen.approvals, ended));
        let found = all.find(|item| item.id() == id).ok_or_else(missing)?;
        let held = seen.turn.session_id == session_id
            && match lineage.holds(state, cx, &place.turn_id).await {
                // Who may not read what lies between is taken to go on from it.
                Err(error) if error.code() == Code::PermissionDenied => true,
                holds => holds?,
            };
        if !held {
            whole.push(json!(found));
        }
    }
    *given = whole;
    Ok(())
}
