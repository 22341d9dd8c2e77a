//! What the processes of a database are told to forget: calls, counted for all of them together, of each tenant the newest.

use async_trait::async_trait;
use llama_stack_core::Result;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

const NOTE: &str = "INSERT INTO forgotten (whose, number, caller) VALUES ($1, COALESCE((SELECT MAX(number) FROM forgotten), 0) + 1, $2) \
                    ON CONFLICT (whose) DO UPDATE SET number = excluded.number, caller = excluded.caller";
const LAST: &str = "SELECT COALESCE(MAX(number), 0) FROM forgotten";
const SINCE: &str = "SELECT whose, number, caller FROM forgotten WHERE number > $1 ORDER BY number LIMIT 1000";

struct Note {
    tenant: String,
    caller: String,
}

#[async_trait]
impl Command for Note {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        // One after the other: who has seen a number has seen all below it.
        conn.lock("forgotten").await?;
        conn.execute(NOTE, args![&self.tenant, &self.caller]).await?;
        Ok(Outcome::Done)
    }
}

/// A tenant that is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    pub tenant: String,
    pub number: i64,
    /// The process that called for it.
    pub caller: String,
}

impl Store {
    /// Has every process forget what it keeps of a tenant.
    pub async fn note_forgotten(&self, tenant: &str, caller: &str) -> Result<()> {
        self.write(Note { tenant: tenant.into(), caller: caller.into() }).await.map(drop)
    }

    /// The number of the last call; 0 before the first.
    pub async fn last_forgotten(&self) -> Result<i64> {
        let rows = self.read(LAST, &[]).await?;
        rows.first().map_or(Ok(0), |row| row.int(0)).map_err(|error| failure::report(&error))
    }

    /// The calls after this one, at most 1,000, in their order.
    pub async fn forgotten_since(&self, number: i64) -> Result<Vec<Forgotten>> {
        let rows = self.read(SINCE, args![number]).await?;
        let read = |row: &Row| Ok(Forgotten { tenant: row.text(0)?, number: row.int(1)?, caller: row.text(2)? });
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }
}
