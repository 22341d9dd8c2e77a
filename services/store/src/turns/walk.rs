//! A walk over turns, newest first, for whoever looks for something in them: also over those that answer a call of another.

use llama_stack_core::{Result, ids};
use prost_types::Timestamp;

use super::micros;
use crate::{
    Store, failure,
    page::{self, Page},
    sql::args,
};

/// Ids sort by time, so both are walks along an index from its end, which read no more rows than they give.
const ALL: &str = "SELECT id FROM turns WHERE tenant = $1 AND id < $2 AND id >= $3 AND created_us >= $4 ORDER BY id DESC LIMIT $5";
const OF_SESSION: &str = "SELECT id FROM turns WHERE tenant = $1 AND id < $2 AND id >= $3 AND created_us >= $4 AND session_id = $6 \
                          ORDER BY id DESC LIMIT $5";

/// By so much may the time in a turn's id and that of its creation differ: two processes' clocks, or a call that waits to be answered.
const SLACK_US: i64 = 60_000_000;

/// Sorts after whatever begins with an id, and before the next one.
const PAST: char = '~';

/// Which turns, and from where.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnWalk<'a> {
    /// Whose walk it is: its tokens serve nobody else.
    pub viewer: &'a str,
    /// `None`: of all sessions.
    pub session_id: Option<&'a str>,
    /// Only those that were created at or after this moment.
    pub since: Option<&'a Timestamp>,
    /// None that were created long after this moment; a minute's worth of them may be among them.
    pub until: Option<&'a Timestamp>,
    /// At most so many.
    pub most: u32,
    /// What [`WalkedTurns`] of the same session gave.
    pub page_token: &'a str,
}

/// Some turns on the way.
#[derive(Debug)]
pub struct WalkedTurns {
    /// Newest first.
    pub ids: Vec<String>,
    /// So many parts of the first one are left to look at. `None`: all.
    pub left: Option<usize>,
    page: Page,
    /// There are others after these.
    more: bool,
}

impl WalkedTurns {
    /// The token that goes on with what comes after the turn at `index`; empty where nothing does.
    pub fn after(&self, index: usize) -> Result<String> {
        let last = self.ids.get(index).filter(|_| self.more || index + 1 < self.ids.len());
        last.map_or_else(|| Ok(String::new()), |id| self.page.token(id))
    }

    /// The token that goes on with the turn at `index`, of which so many parts are left.
    pub fn within(&self, index: usize, left: usize) -> Result<String> {
        self.ids.get(index).map_or_else(|| Ok(String::new()), |id| self.page.token(&format!("{id}/{left}")))
    }
}

impl Store {
    /// The turns that come next.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this walk never gave
    pub async fn walk_turns(&self, tenant: &str, walk: TurnWalk<'_>) -> Result<WalkedTurns> {
        let view = [tenant, walk.viewer, "walk", walk.session_id.unwrap_or("*")];
        let page = self.page(&view, walk.most, walk.page_token).await?;
        let (mut before, within) = match page.newest_first().split_once('/') {
            Some((id, left)) => (format!("{id}{PAST}"), Some((id, left.parse::<usize>().map_err(|_| page::crooked())?))),
            None => (page.newest_first().to_owned(), None),
        };
        if let Some(until) = walk.until {
            before = before.min(at(micros(Some(until)).saturating_add(SLACK_US)));
        }
        let since_us = walk.since.map_or(i64::MIN, |since| micros(Some(since)));
        let from = at(since_us.saturating_sub(SLACK_US));
        let rows = match walk.session_id {
            None => self.read(ALL, args![tenant, &before, &from, since_us, page.limit()]).await?,
            Some(session) => self.read(OF_SESSION, args![tenant, &before, &from, since_us, page.limit(), session]).await?,
        };
        let mut ids = rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<Vec<String>>>().map_err(|error| failure::report(&error))?;
        let more = ids.len() as i64 == page.limit() && ids.pop().is_some();
        let left = within.and_then(|(id, left)| ids.first().is_some_and(|first| first == id).then_some(left));
        Ok(WalkedTurns { ids, left, page, more })
    }
}

/// Where the ids of turns begin that were made then or later.
fn at(micros: i64) -> String {
    ids::first("turn", u64::try_from(micros / 1_000).unwrap_or_default())
}
