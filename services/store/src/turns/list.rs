//! Lists of turns in either order, of one session or of all.

use llama_stack_core::Result;

use crate::{Store, failure, sql::args};

/// Turns that answer a call of another are no part of a list.
const ALL_OLDEST: &str = "SELECT id FROM turns WHERE tenant = $1 AND caller_turn_id = '' AND id > $2 ORDER BY id LIMIT $3";
const ALL_NEWEST: &str = "SELECT id FROM turns WHERE tenant = $1 AND caller_turn_id = '' AND id < $2 ORDER BY id DESC LIMIT $3";
const OLDEST: &str = "SELECT id FROM turns WHERE tenant = $1 AND caller_turn_id = '' AND session_id = $4 AND id > $2 ORDER BY id LIMIT $3";
const NEWEST: &str =
    "SELECT id FROM turns WHERE tenant = $1 AND caller_turn_id = '' AND session_id = $4 AND id < $2 ORDER BY id DESC LIMIT $3";

/// Which turns, in which order, from where.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnList<'a> {
    /// Whose list it is: its tokens serve nobody else.
    pub viewer: &'a str,
    /// `None`: of all sessions.
    pub session_id: Option<&'a str>,
    pub newest_first: bool,
    /// Begin after this id, which need not be there. Not beside a `page_token`.
    pub after: &'a str,
    /// 0 means 100, at most 1,000.
    pub page_size: u32,
    pub page_token: &'a str,
}

impl Store {
    /// A page of turns, and the token of the next (empty at the end). An unknown session has none.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn turn_ids(&self, tenant: &str, list: TurnList<'_>) -> Result<(Vec<String>, String)> {
        let order = if list.newest_first { "newest" } else { "oldest" };
        let view = [tenant, list.viewer, "turns", order, list.session_id.unwrap_or("*")];
        let page = self.page(&view, list.page_size, list.page_token).await?;
        let from = match (list.page_token.is_empty() && !list.after.is_empty(), list.newest_first) {
            (true, _) => list.after,
            (false, true) => page.newest_first(),
            (false, false) => page.oldest_first(),
        };
        let rows = match (list.session_id, list.newest_first) {
            (None, false) => self.read(ALL_OLDEST, args![tenant, from, page.limit()]).await?,
            (None, true) => self.read(ALL_NEWEST, args![tenant, from, page.limit()]).await?,
            (Some(session), false) => self.read(OLDEST, args![tenant, from, page.limit(), session]).await?,
            (Some(session), true) => self.read(NEWEST, args![tenant, from, page.limit(), session]).await?,
        };
        let ids = rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<Vec<String>>>().map_err(|error| failure::report(&error))?;
        page.cut(ids, |id| id)
    }
}
