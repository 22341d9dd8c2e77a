//! Deleting a turn, with the turns that its tool calls began.

use async_trait::async_trait;
use llama_stack_core::Result;

use super::lease::lost;
use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    sql::{Conn, args},
};

/// The deepest that turns may call turns (`Limits.max_depth`).
macro_rules! max_depth {
    () => {
        "8"
    };
}

/// A turn that fulfils the condition, all that it called, all that those called, and so on.
macro_rules! delete_where {
    ($condition:literal) => {
        concat!(
            "WITH RECURSIVE gone (id, depth) AS (SELECT id, 0 FROM turns WHERE tenant = $1 AND id = $2 ",
            $condition,
            " UNION ALL SELECT called.id, gone.depth + 1 FROM turns called JOIN gone ON called.caller_turn_id = gone.id",
            " WHERE called.tenant = $1 AND called.caller_turn_id <> '' AND gone.depth < ",
            max_depth!(),
            ") DELETE FROM turns WHERE tenant = $1 AND id IN (SELECT id FROM gone)"
        )
    };
}

const DELETE: &str = delete_where!("");
const DELETE_HELD: &str = delete_where!("AND epoch = $3");
const EXISTS: &str = "SELECT 1 FROM turns WHERE tenant = $1 AND id = $2";

impl Store {
    /// Deletes the turn with its journal, whatever its status, and with the turns that it called, all or nothing. Its
    /// idempotency key stays for its time.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn delete_turn(&self, tenant: &str, id: &str) -> Result<()> {
        self.erase(DeleteTurn { tenant: tenant.into(), id: id.into(), epoch: None }).await.map(drop)
    }

    /// Deletes as [`Store::delete_turn`] does, a turn that is held under `epoch`.
    ///
    /// # Errors
    /// `NotFound` · `Aborted` another has taken the turn over (`lease_lost`)
    pub async fn delete_held_turn(&self, tenant: &str, id: &str, epoch: i64) -> Result<()> {
        self.write(DeleteTurn { tenant: tenant.into(), id: id.into(), epoch: Some(epoch) }).await.map(drop)
    }
}

struct DeleteTurn {
    tenant: String,
    id: String,
    epoch: Option<i64>,
}

#[async_trait]
impl Command for DeleteTurn {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let (tenant, id) = (&self.tenant, &self.id);
        let deleted = match self.epoch {
            Some(epoch) => conn.execute(DELETE_HELD, args![tenant, id, epoch]).await?,
            None => conn.execute(DELETE, args![tenant, id]).await?,
        };
        if deleted > 0 {
            return Ok(Outcome::Done);
        }
        let there = self.epoch.is_some() && !conn.rows(EXISTS, args![tenant, id]).await?.is_empty();
        Err(if there { lost(id) } else { not_found("turn", id) }.into())
    }
}
