//! Turns and their journals.

mod append;
mod begin;
mod delete;
mod key;
mod lease;
mod list;
pub(crate) mod marks;
mod quotes;
mod rewrite;
mod walk;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{TurnEvent, TurnStatus};
use prost_types::Timestamp;

use crate::{Store, command::not_found, failure, sql::args};

pub use begin::{BeginTurn, Begun, FIRST_EPOCH};
pub(crate) use lease::TURNS;
pub use lease::{Claimed, Held};
pub use list::TurnList;
pub use walk::{TurnWalk, WalkedTurns};

const JOURNAL: &str = "SELECT body FROM journal WHERE tenant = $1 AND turn_id = $2 AND seq > $3 ORDER BY seq";
const EXISTS: &str = "SELECT 1 FROM turns WHERE tenant = $1 AND id = $2";
/// A turn that answers another's tool call is no part of the session's history.
const NEWEST: &str = "SELECT id FROM turns WHERE tenant = $1 AND session_id = $2 AND caller_turn_id = '' ORDER BY id DESC LIMIT 1";
/// The statuses stand here in digits because the partial index is used only where the query repeats its condition.
const UNFINISHED: &str = "SELECT tenant, id, status FROM turns WHERE status IN (1, 2) ORDER BY id";

/// A turn that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub tenant: String,
    pub turn_id: String,
    /// `InProgress` or `AwaitingTools`.
    pub status: TurnStatus,
}

impl Store {
    /// The events numbered above `after`, in order; all of them for 0.
    ///
    /// # Errors
    /// `NotFound` no such turn
    pub async fn journal(&self, tenant: &str, turn_id: &str, after: u64) -> Result<Vec<TurnEvent>> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = self.read(JOURNAL, args![tenant, turn_id, after]).await?;
        if rows.is_empty() && self.read(EXISTS, args![tenant, turn_id]).await?.is_empty() {
            return Err(not_found("turn", turn_id));
        }
        rows.iter().map(failure::decode).collect()
    }

    /// The session's turn that was created last, of those that answer no other turn's tool call.
    pub async fn newest_turn_id(&self, tenant: &str, session_id: &str) -> Result<Option<String>> {
        let rows = self.read(NEWEST, args![tenant, session_id]).await?;
        rows.first().map(|row| row.text(0)).transpose().map_err(|error| failure::report(&error))
    }

    /// The turns of all tenants that have not ended, oldest first.
    pub async fn unfinished_turns(&self) -> Result<Vec<Unfinished>> {
        let rows = self.read(UNFINISHED, &[]).await?;
        let read = |row: &crate::sql::Row| Ok(Unfinished { tenant: row.text(0)?, turn_id: row.text(1)?, status: status(row.int(2)?) });
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }
}

fn status(stored: i64) -> TurnStatus {
    i32::try_from(stored).ok().and_then(|status| TurnStatus::try_from(status).ok()).unwrap_or(TurnStatus::Unspecified)
}

/// Microseconds since the epoch.
pub(crate) fn micros(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1_000))
}

/// A sequence number as the databases hold it.
fn sequence(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::internal("a journal's sequence number is out of range"))
}
