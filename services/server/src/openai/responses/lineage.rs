//! The turns that led to where a request goes on.

use std::collections::HashSet;

use llama_stack_core::{Code, Context, Result};
use llama_stack_proto::v1::{GetTurnRequest, ListTurnsRequest, Turn};

use crate::http::AppState;

/// Which turns a history holds. They are looked up one after the other, as far back as somebody asks.
pub(super) struct Lineage<'a> {
    session_id: &'a str,
    /// Of those that were passed.
    ids: HashSet<String>,
    /// The one before these, empty where there is none. None until the first is looked for.
    next: Option<String>,
}

impl<'a> Lineage<'a> {
    /// Of what goes on from `parent_id`, or, where that is empty, from the last of the session's own turns.
    pub(super) fn new(session_id: &'a str, parent_id: &str) -> Self {
        Self { session_id, ids: HashSet::new(), next: Some(parent_id.to_owned()).filter(|id| !id.is_empty()) }
    }

    /// # Errors
    /// Those of reading turns.
    pub(super) async fn holds(&mut self, state: &AppState, cx: &Context, id: &str) -> Result<bool> {
        let mut next = match self.next.take() {
            Some(next) => next,
            None => newest(state, cx, self.session_id).await?.map(|turn| turn.id).unwrap_or_default(),
        };
        while next != id && !next.is_empty() && !self.ids.contains(id) {
            let before = turn(state, cx, &next).await?.map(|turn| turn.parent_turn_id).unwrap_or_default();
            self.ids.insert(std::mem::replace(&mut next, before));
        }
        let holds = next == id || self.ids.contains(id);
        self.next = Some(next);
        Ok(holds)
    }
}

/// The turn that a request goes on from.
///
/// # Errors
/// Those of reading turns.
pub(super) async fn last(state: &AppState, cx: &Context, session_id: &str, parent_id: &str) -> Result<Option<Turn>> {
    if parent_id.is_empty() { newest(state, cx, session_id).await } else { turn(state, cx, parent_id).await }
}

/// The last of a session's own turns.
async fn newest(state: &AppState, cx: &Context, session_id: &str) -> Result<Option<Turn>> {
    if session_id.is_empty() {
        return Ok(None);
    }
    let mut request =
        ListTurnsRequest { session_id: session_id.to_owned(), newest_first: true, page_size: 4, ..ListTurnsRequest::default() };
    loop {
        let page = state.agents.list_turns(cx, request.clone()).await?;
        if let Some(turn) = page.turns.into_iter().find(|turn| turn.caller_turn_id.is_empty()) {
            return Ok(Some(turn));
        }
        if page.next_page_token.is_empty() {
            return Ok(None);
        }
        request.page_token = page.next_page_token;
    }
}

/// A turn; none where it was deleted, which ends the history.
///
/// # Errors
/// Those of reading turns.
pub(super) async fn turn(state: &AppState, cx: &Context, id: &str) -> Result<Option<Turn>> {
    match state.agents.get_turn(cx, GetTurnRequest { id: id.to_owned() }).await {
        Ok(turn) => Ok(Some(turn)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
