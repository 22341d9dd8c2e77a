//! What is older than it may get.

use async_trait::async_trait;
use llama_stack_core::Result;
use prost_types::Timestamp;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    owners::{owned_sessions, owner_in},
    sql::{Arg, Conn, Row, args},
    turns::micros,
};

/// Looked at in one query.
const AT_ONCE: i64 = 200;

/// Sorts after every tenant.
const END: &str = "\u{10FFFF}";

const SESSIONS: &str = owned_sessions!(
    "s.tenant, s.id, s.created_us, s.last_us",
    ", i.created_us, COALESCE((SELECT MAX(t.created_us) FROM turns t WHERE t.tenant = i.tenant AND t.session_id = i.id), 0) AS last_us",
    "i.created_us < $1 AND (i.tenant, i.id) > ($2, $3) AND i.tenant <= $4 \
     AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.tenant = i.tenant AND t.session_id = i.id \
     AND (t.created_us >= $1 OR t.status IN (1, 2))) ORDER BY i.tenant, i.id LIMIT $5"
);
/// Ids sort by the time of their making.
const FILES: &str =
    "SELECT tenant, id, owner FROM files WHERE id < $1 AND (tenant, id) > ($2, $3) AND tenant <= $4 ORDER BY tenant, id LIMIT $5";
/// Those that have come to their end.
const BATCHES: &str = "SELECT tenant, id, owner FROM batches WHERE id < $1 AND status > 4 AND (tenant, id) > ($2, $3) AND tenant <= $4 \
                       ORDER BY tenant, id LIMIT $5";
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

/// A session, a file or a batch that may be older than its owner's rule lets it get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aged {
    pub tenant: String,
    pub id: String,
    /// Empty: nobody is known.
    pub owner: String,
    since_us: i64,
}

impl Aged {
    /// Whether it was made, or something was last begun in it, before then.
    pub fn is_older(&self, then: &Timestamp) -> bool {
        self.since_us < micros(Some(then))
    }

    /// One whose id says when it was made: the first 48 bits after its prefix are milliseconds since 1970.
    fn made(row: &Row) -> sqlx::Result<Self> {
        let id = row.text(1)?;
        let time = id.split_once(['-', '_']).and_then(|(_, digits)| i64::from_str_radix(digits.get(..12)?, 16).ok());
        // What does not say its time stays.
        let since_us = time.map_or(i64::MAX, |millis| millis.saturating_mul(1_000));
        Ok(Self { tenant: row.text(0)?, id, owner: row.text(2)?, since_us })
    }
}

impl Store {
    /// Sessions in which nothing was begun since then and no turn runs, with their owners: of one tenant, or (none) of all; at most
    /// 200, after this one.
    pub async fn idle_sessions(&self, since: &Timestamp, tenant: Option<&str>, after: Option<&Aged>) -> Result<Vec<Aged>> {
        let rows = self.aged(SESSIONS, micros(Some(since)).into(), tenant, after).await?;
        let idle = |row: &Row| {
            let read = || Ok((row.text(0)?, row.text(1)?, row.int(2)?.max(row.int(3)?)));
            let (tenant, id, since_us) = read().map_err(|error: sqlx::Error| failure::report(&error))?;
            Ok(Aged { tenant, id, owner: owner_in(row, 4)?.unwrap_or_default(), since_us })
        };
        rows.iter().map(idle).collect()
    }

    /// Files that were uploaded before, in the same way.
    pub async fn files_before(&self, then: &Timestamp, tenant: Option<&str>, after: Option<&Aged>) -> Result<Vec<Aged>> {
        let first = format!("file-{:012x}", micros(Some(then)) / 1_000);
        made(&self.aged(FILES, Arg::from(&first), tenant, after).await?)
    }

    /// Batches that were made before and have ended, in the same way.
    pub async fn batches_before(&self, then: &Timestamp, tenant: Option<&str>, after: Option<&Aged>) -> Result<Vec<Aged>> {
        let first = format!("batch_{:012x}", micros(Some(then)) / 1_000);
        made(&self.aged(BATCHES, Arg::from(&first), tenant, after).await?)
    }

    async fn aged(&self, sql: &'static str, before: Arg<'_>, tenant: Option<&str>, after: Option<&Aged>) -> Result<Vec<Row>> {
        let (from, id) = after.map_or((tenant.unwrap_or_default(), ""), |last| (last.tenant.as_str(), last.id.as_str()));
        self.read(sql, &[before, from.into(), id.into(), tenant.unwrap_or(END).into(), AT_ONCE.into()]).await
    }

    /// Forgets a batch that has ended. Its files are its owner's, and stay.
    pub async fn forget_batch(&self, tenant: &str, id: &str) -> Result<()> {
        self.write(ForgetBatch { tenant: tenant.into(), id: id.into() }).await.map(drop)
    }
}

fn made(rows: &[Row]) -> Result<Vec<Aged>> {
    rows.iter().map(Aged::made).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
}
