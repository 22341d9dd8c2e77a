//! Leases: which process works at a row. Each new owner has a greater epoch, and a write with an older one is refused.
//!
//! ```text
//! claim ─> owner, epoch, lease ── renew ──> … ── release ──> nobody's
//!                          └─ not renewed in time ──> claim: another's, epoch + 1
//! ```
//!
//! Leases are told by their owners' own clocks, so those of all processes must agree up to a part of a lease: an owner
//! whose clock is behind by more than that is overtaken though it lives. That costs the work that was under way, never
//! what is written: the epoch decides who writes, and no clock.

use std::time::Duration;

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result};
use prost_types::Timestamp;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

/// Who works, and for how long at a time without a renewal.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Unique to the process's life. Not empty.
    pub owner: &'a str,
    pub now: Timestamp,
    pub lease: Duration,
}

impl Holder<'_> {
    pub(crate) fn now_us(&self) -> i64 {
        micros(Some(&self.now))
    }

    pub(crate) fn until_us(&self) -> i64 {
        self.now_us().saturating_add(i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The statements of a table whose rows are leased. Such a table has the columns `tenant`, `id`, `epoch` and
/// `lease_until_us`, and one for the owner.
pub(crate) struct Leases {
    expired: &'static str,
    claim: &'static str,
    renew: &'static str,
    release: &'static str,
    release_all: &'static str,
    end_all: &'static str,
}

/// `open`: which rows are to be worked at. A query repeats the condition of the table's partial index, or SQLite would not
/// use that. `held`: which rows may have a lease. `returning`: a text and a number that are of interest beside.
///
/// In a claim the conditions stand twice, for Postgres: of two claimers the slower one waits for a row that it has chosen,
/// then looks at the outer ones again, and leaves it.
macro_rules! leases {
    (table: $table:literal, owner: $owner:literal, open: $open:literal, held: $held:literal, returning: $returning:literal) => {
        $crate::lease::Leases::new([
            concat!("SELECT 1 FROM ", $table, " WHERE ", $open, " AND ", $owner, " <> $1 AND lease_until_us < $2 LIMIT 1"),
            concat!(
                "UPDATE ",
                $table,
                " SET ",
                $owner,
                " = $1, epoch = epoch + 1, lease_until_us = $3 WHERE ",
                $open,
                " AND ",
                $owner,
                " <> $1 AND lease_until_us < $2 AND (tenant, id) IN (SELECT tenant, id FROM ",
                $table,
                " WHERE ",
                $open,
                " AND ",
                $owner,
                " <> $1 AND lease_until_us < $2 ORDER BY id LIMIT $4) RETURNING tenant, id, epoch, ",
                $returning
            ),
            concat!(
                "UPDATE ",
                $table,
                " SET lease_until_us = $2 WHERE ",
                $open,
                " AND ",
                $owner,
                " = $1 RETURNING tenant, id, epoch, ",
                $returning
            ),
            concat!(
                "UPDATE ",
                $table,
                " SET ",
                $owner,
                " = '', lease_until_us = 0 WHERE ",
                $open,
                " AND tenant = $1 AND id = $2 AND epoch = $3"
            ),
            concat!(
                "UPDATE ",
                $table,
                " SET ",
                $owner,
                " = '', lease_until_us = 0 WHERE ",
                $open,
                " AND ",
                $owner,
                " = $1 RETURNING tenant, id, epoch, ",
                $returning
            ),
            concat!("UPDATE ", $table, " SET ", $owner, " = '', lease_until_us = 0 WHERE ", $held, " AND lease_until_us > 0"),
        ])
    };
}
pub(crate) use leases;

/// A row that is held under an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leased {
    pub(crate) tenant: String,
    pub(crate) id: String,
    pub(crate) epoch: i64,
    /// What else its table returns.
    pub(crate) text: String,
    pub(crate) number: i64,
}

impl Leases {
    /// Statements in the order of the fields.
    pub(crate) const fn new(statements: [&'static str; 6]) -> Self {
        let [expired, claim, renew, release, release_all, end_all] = statements;
        Self { expired, claim, renew, release, release_all, end_all }
    }

    /// Ends every lease, in a database that nobody else has open.
    pub(crate) async fn end_all(&self, conn: &mut Conn<'_>) -> Result<()> {
        conn.execute(self.end_all, &[]).await.map(drop).map_err(|error| failure::report(&error))
    }
}

impl Store {
    /// Takes over rows of any tenant whose leases have run out, at most `limit`, oldest first. Of several claimers each row
    /// goes to one. The holder's own are not claimed, however late it is.
    pub(crate) async fn claim_leases(&self, leases: &'static Leases, holder: Holder<'_>, limit: u32) -> Result<Vec<Leased>> {
        // Most often there is nothing to claim, and to find that out needs no transaction.
        if limit == 0 || self.read(leases.expired, args![holder.owner, holder.now_us()]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let claim = Claim {
            sql: leases.claim,
            owner: holder.owner.into(),
            now_us: holder.now_us(),
            until_us: holder.until_us(),
            limit: limit.into(),
        };
        let mut claimed = self.leased(claim).await?;
        claimed.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(claimed)
    }

    /// Extends all of the holder's leases, also those that have run out and were not claimed, and says which they are.
    pub(crate) async fn renew_leases(&self, leases: &'static Leases, holder: Holder<'_>) -> Result<Vec<Leased>> {
        self.leased(Change { sql: leases.renew, owner: holder.owner.into(), until_us: Some(holder.until_us()) }).await
    }

    /// Gives up one row. Nothing changes if it is not held under this epoch any more.
    pub(crate) async fn release_lease(&self, leases: &'static Leases, tenant: &str, id: &str, epoch: i64) -> Result<()> {
        self.write(Release { sql: leases.release, tenant: tenant.into(), id: id.into(), epoch }).await.map(drop)
    }

    /// Gives up all rows of an owner, and says which they were.
    pub(crate) async fn release_leases(&self, leases: &'static Leases, owner: &str) -> Result<Vec<Leased>> {
        self.leased(Change { sql: leases.release_all, owner: owner.into(), until_us: None }).await
    }

    async fn leased(&self, command: impl Command + 'static) -> Result<Vec<Leased>> {
        match self.write(command).await? {
            Outcome::Leased(leased) => Ok(leased),
            _ => Ok(Vec::new()),
        }
    }
}

/// What a write with an old epoch is told. `what`: `turn` or `batch`.
pub(crate) fn lost(what: &str, id: &str) -> Error {
    Error::new(Code::Aborted, format!("{what} {id:?} is another process's now")).with_reason("lease_lost")
}

struct Claim {
    sql: &'static str,
    owner: String,
    now_us: i64,
    until_us: i64,
    limit: i64,
}

#[async_trait]
impl Command for Claim {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let rows = conn.rows(self.sql, args![&self.owner, self.now_us, self.until_us, self.limit]).await?;
        outcome(&rows)
    }
}

struct Change {
    /// Parameters: owner, and the new end of the lease where there is one.
    sql: &'static str,
    owner: String,
    until_us: Option<i64>,
}

#[async_trait]
impl Command for Change {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let rows = match self.until_us {
            Some(until_us) => conn.rows(self.sql, args![&self.owner, until_us]).await?,
            None => conn.rows(self.sql, args![&self.owner]).await?,
        };
        outcome(&rows)
    }
}

struct Release {
    sql: &'static str,
    tenant: String,
    id: String,
    epoch: i64,
}

#[async_trait]
impl Command for Release {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(self.sql, args![&self.tenant, &self.id, self.epoch]).await?;
        Ok(Outcome::Done)
    }
}

fn outcome(rows: &[Row]) -> Result<Outcome, Failure> {
    let leased =
        |row: &Row| Ok(Leased { tenant: row.text(0)?, id: row.text(1)?, epoch: row.int(2)?, text: row.text(3)?, number: row.int(4)? });
    Ok(Outcome::Leased(rows.iter().map(leased).collect::<sqlx::Result<_>>()?))
}
