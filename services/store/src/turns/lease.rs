//! Leases: who runs a turn. Each new owner has a greater epoch, and a write with an older one is refused.
//!
//! ```text
//! begin_turn, take, claim ─> owner, epoch, lease ── renew ──> … ── append to a rest, release ──> nobody's
//!                                                 └─ not renewed in time ──> claim: another's, epoch + 1
//! ```
//!
//! Leases are told by their owners' own clocks, so those of all processes must agree up to a part of a lease: an owner
//! whose clock is behind by more than that is overtaken though it lives. That costs the work that was under way, never
//! the journal: the epoch decides who writes, and no clock.

use std::time::Duration;

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result};
use prost_types::Timestamp;

use super::micros;
use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

/// Here and below a query repeats the partial index's condition, or SQLite would not use it.
const EXPIRED: &str = "SELECT 1 FROM turns WHERE status IN (1, 2) AND status = 1 AND owner <> $1 AND lease_until_us < $2 LIMIT 1";
/// The conditions stand there twice for Postgres: of two claimers the slower one waits for a row that it has chosen, then
/// looks at the outer ones again, and leaves it.
const CLAIM: &str = "UPDATE turns SET owner = $1, epoch = epoch + 1, lease_until_us = $3 \
                     WHERE status = 1 AND owner <> $1 AND lease_until_us < $2 AND (tenant, id) IN \
                     (SELECT tenant, id FROM turns WHERE status IN (1, 2) AND status = 1 AND owner <> $1 AND lease_until_us < $2 \
                     ORDER BY id LIMIT $4) \
                     RETURNING tenant, id, epoch, session_id, head_seq";
const RENEW: &str = "UPDATE turns SET lease_until_us = $2 WHERE status IN (1, 2) AND status = 1 AND owner = $1 \
                     RETURNING tenant, id, epoch";
const RELEASE: &str = "UPDATE turns SET owner = '', lease_until_us = 0 WHERE status = 1 AND tenant = $1 AND id = $2 AND epoch = $3";
const RELEASE_ALL: &str = "UPDATE turns SET owner = '', lease_until_us = 0 WHERE status IN (1, 2) AND status = 1 AND owner = $1 \
                           RETURNING tenant, id, epoch";
/// For a database that nobody else has open.
const END_ALL: &str = "UPDATE turns SET owner = '', lease_until_us = 0 WHERE status IN (1, 2) AND lease_until_us > 0";

/// Who runs turns, and for how long at a time without a renewal.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Unique to the process's life. Not empty.
    pub owner: &'a str,
    pub now: Timestamp,
    pub lease: Duration,
}

/// A turn that is held under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub tenant: String,
    pub turn_id: String,
    pub epoch: i64,
}

/// A turn that was taken over where its last owner left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub held: Held,
    pub session_id: String,
    /// The number of the journal's last event.
    pub sequence: u64,
}

impl Holder<'_> {
    pub(crate) fn now_us(&self) -> i64 {
        micros(Some(&self.now))
    }

    pub(crate) fn until_us(&self) -> i64 {
        self.now_us().saturating_add(i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX))
    }
}

impl Store {
    /// Takes over turns in progress of any tenant whose leases have run out, at most `limit`, oldest first. Of several
    /// claimers each turn goes to one. The holder's own turns are not claimed, however late it is.
    pub async fn claim(&self, holder: Holder<'_>, limit: u32) -> Result<Vec<Claimed>> {
        // Most often there is nothing to claim, and to find that out needs no transaction.
        if self.read(EXPIRED, args![holder.owner, holder.now_us()]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let claim = Claim { owner: holder.owner.into(), now_us: holder.now_us(), until_us: holder.until_us(), limit: limit.into() };
        match self.write(claim).await? {
            Outcome::Claimed(mut claimed) => {
                claimed.sort_unstable_by(|a, b| a.held.turn_id.cmp(&b.held.turn_id));
                Ok(claimed)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Extends all of the holder's leases, also those that have run out and were not claimed, and says which they are. A
    /// turn that is not among them has come to rest, is gone, or is another's now.
    pub async fn renew(&self, holder: Holder<'_>) -> Result<Vec<Held>> {
        self.change_held(ChangeHeld { sql: RENEW, owner: holder.owner.into(), until_us: Some(holder.until_us()) }).await
    }

    /// Gives up one turn, so that any process goes on with it. Nothing changes if it is not held under this epoch any more.
    pub async fn release_turn(&self, held: &Held) -> Result<()> {
        self.write(Release(held.clone())).await.map(drop)
    }

    /// Gives up all turns of an owner, which must not run them any more, and says which they were.
    pub async fn release_all(&self, owner: &str) -> Result<Vec<Held>> {
        self.change_held(ChangeHeld { sql: RELEASE_ALL, owner: owner.into(), until_us: None }).await
    }

    async fn change_held(&self, change: ChangeHeld) -> Result<Vec<Held>> {
        match self.write(change).await? {
            Outcome::Held(held) => Ok(held),
            _ => Ok(Vec::new()),
        }
    }
}

/// What a write with an old epoch is told.
pub(super) fn lost(turn_id: &str) -> Error {
    let message = format!("turn {turn_id:?} is another process's now");
    Error::new(Code::Aborted, message).with_reason("lease_lost")
}

struct Claim {
    owner: String,
    now_us: i64,
    until_us: i64,
    limit: i64,
}

#[async_trait]
impl Command for Claim {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let rows = conn.rows(CLAIM, args![&self.owner, self.now_us, self.until_us, self.limit]).await?;
        Ok(Outcome::Claimed(rows.iter().map(claimed).collect::<sqlx::Result<_>>()?))
    }
}

struct ChangeHeld {
    /// Parameters: owner, and the new end of the lease where there is one. Returns tenant, id, epoch.
    sql: &'static str,
    owner: String,
    until_us: Option<i64>,
}

#[async_trait]
impl Command for ChangeHeld {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let rows = match self.until_us {
            Some(until_us) => conn.rows(self.sql, args![&self.owner, until_us]).await?,
            None => conn.rows(self.sql, args![&self.owner]).await?,
        };
        Ok(Outcome::Held(rows.iter().map(held).collect::<sqlx::Result<_>>()?))
    }
}

struct Release(Held);

#[async_trait]
impl Command for Release {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(RELEASE, args![&self.0.tenant, &self.0.turn_id, self.0.epoch]).await?;
        Ok(Outcome::Done)
    }
}

fn held(row: &Row) -> sqlx::Result<Held> {
    Ok(Held { tenant: row.text(0)?, turn_id: row.text(1)?, epoch: row.int(2)? })
}

fn claimed(row: &Row) -> sqlx::Result<Claimed> {
    Ok(Claimed { held: held(row)?, session_id: row.text(3)?, sequence: row.int(4)?.unsigned_abs() })
}

/// Ends every lease, in a database that nobody else has open.
pub(crate) async fn end_all(conn: &mut Conn<'_>) -> Result<()> {
    conn.execute(END_ALL, &[]).await.map(drop).map_err(|error| failure::report(&error))
}
