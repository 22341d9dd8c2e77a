//! What is older than it may get.

use async_trait::async_trait;
use llama_stack_core::Result;
use prost_types::Timestamp;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

/// Looked at in one query.
const AT_ONCE: i64 = 200;

const SESSIONS: &str = "SELECT tenant, id FROM sessions s WHERE created_us < $1 AND (tenant > $2 OR (tenant = $2 AND id > $3)) \
                        AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.tenant = s.tenant AND t.session_id = s.id \
                        AND (t.created_us >= $1 OR t.status IN (1, 2))) ORDER BY tenant, id LIMIT $4";
/// Ids sort by the time of their making.
const FILES: &str =
    "SELECT tenant, id FROM files WHERE id < $1 AND (tenant > $2 OR (tenant = $2 AND id > $3)) ORDER BY tenant, id LIMIT $4";

/// Those that have come to their end.
const BATCHES: &str = "SELECT tenant, id FROM batches WHERE id < $1 AND status > 4 AND (tenant > $2 OR (tenant = $2 AND id > $3)) \
                       ORDER BY tenant, id LIMIT $4";
const FORGET_BATCH: &str = "DELETE FROM batches WHERE tenant = $1 AND id = $2 AND status > 4";

struct ForgetBatch {
    tenant: String,
    id: String,
}

#[async_trait]
impl Command for ForgetBatch {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(FORGET_BATCH, args![&self.tenant, &self.id]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Tenant and id of sessions, of all tenants, in which nothing was begun since then and no turn runs; at most 200, after this one.
    pub async fn idle_sessions(&self, since: &Timestamp, after: &(String, String)) -> Result<Vec<(String, String)>> {
        let rows = self.read(SESSIONS, args![micros(Some(since)), &after.0, &after.1, AT_ONCE]).await?;
        pairs(&rows)
    }

    /// Tenant and id of files, of all tenants, that were uploaded before; at most 200, after this one.
    pub async fn files_before(&self, then: &Timestamp, after: &(String, String)) -> Result<Vec<(String, String)>> {
        // The first 48 bits of such an id are milliseconds since 1970.
        let first = format!("file-{:012x}", micros(Some(then)) / 1_000);
        let rows = self.read(FILES, args![&first, &after.0, &after.1, AT_ONCE]).await?;
        pairs(&rows)
    }

    /// Tenant and id of batches, of all tenants, that were made before and have ended; at most 200, after this one.
    pub async fn batches_before(&self, then: &Timestamp, after: &(String, String)) -> Result<Vec<(String, String)>> {
        let first = format!("batch_{:012x}", micros(Some(then)) / 1_000);
        let rows = self.read(BATCHES, args![&first, &after.0, &after.1, AT_ONCE]).await?;
        pairs(&rows)
    }

    /// Forgets a batch that has ended. Its files are its owner's, and stay.
    pub async fn forget_batch(&self, tenant: &str, id: &str) -> Result<()> {
        self.write(ForgetBatch { tenant: tenant.into(), id: id.into() }).await.map(drop)
    }
}

fn pairs(rows: &[Row]) -> Result<Vec<(String, String)>> {
    let pair = |row: &Row| Ok((row.text(0)?, row.text(1)?));
    rows.iter().map(pair).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
}
