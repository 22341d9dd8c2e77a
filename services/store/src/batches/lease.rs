//! Who runs a batch: leases with epochs, as turns have them.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::BatchStatus;

use crate::{
    Holder, Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

/// Here and below a query repeats the partial index's condition, or SQLite would not use it.
const EXPIRED: &str = "SELECT 1 FROM batches WHERE status <= 4 AND runner <> $1 AND lease_until_us < $2 LIMIT 1";
/// The conditions stand there twice for Postgres: of two claimers the slower one looks at the outer ones again.
const CLAIM: &str = "UPDATE batches SET runner = $1, epoch = epoch + 1, lease_until_us = $3 \
                     WHERE status <= 4 AND runner <> $1 AND lease_until_us < $2 AND (tenant, id) IN \
                     (SELECT tenant, id FROM batches WHERE status <= 4 AND runner <> $1 AND lease_until_us < $2 ORDER BY id LIMIT $4) \
                     RETURNING tenant, id, epoch, status";
const RENEW: &str = "UPDATE batches SET lease_until_us = $2 WHERE status <= 4 AND runner = $1 RETURNING tenant, id, epoch, status";
const RELEASE: &str = "UPDATE batches SET runner = '', lease_until_us = 0 WHERE tenant = $1 AND id = $2 AND epoch = $3";
/// For a database that nobody else has open.
const END_ALL: &str = "UPDATE batches SET runner = '', lease_until_us = 0 WHERE status <= 4 AND lease_until_us > 0";

/// A batch that is held under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldBatch {
    pub tenant: String,
    pub batch_id: String,
    pub epoch: i64,
    /// When it was claimed or renewed.
    pub status: BatchStatus,
}

struct Claim {
    runner: String,
    now_us: i64,
    until_us: i64,
    limit: i64,
}

#[async_trait]
impl Command for Claim {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let rows = conn.rows(CLAIM, args![&self.runner, self.now_us, self.until_us, self.limit]).await?;
        Ok(Outcome::Batches(rows.iter().map(held).collect::<sqlx::Result<_>>()?))
    }
}

struct Renew {
    runner: String,
    until_us: i64,
}

#[async_trait]
impl Command for Renew {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let rows = conn.rows(RENEW, args![&self.runner, self.until_us]).await?;
        Ok(Outcome::Batches(rows.iter().map(held).collect::<sqlx::Result<_>>()?))
    }
}

struct Release(HeldBatch);

#[async_trait]
impl Command for Release {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(RELEASE, args![&self.0.tenant, &self.0.batch_id, self.0.epoch]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Takes batches of any tenant that have not ended and that nobody runs, at most `limit`, oldest first. Of several
    /// claimers each batch goes to one.
    pub async fn claim_batches(&self, holder: Holder<'_>, limit: u32) -> Result<Vec<HeldBatch>> {
        // Most often there is nothing to claim, and to find that out needs no transaction.
        if limit == 0 || self.read(EXPIRED, args![holder.owner, holder.now_us()]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let claim = Claim { runner: holder.owner.into(), now_us: holder.now_us(), until_us: holder.until_us(), limit: limit.into() };
        self.batches_of(claim).await
    }

    /// Extends all of the holder's leases, and says which they are. A batch that is not among them has ended, or is
    /// another's now.
    pub async fn renew_batches(&self, holder: Holder<'_>) -> Result<Vec<HeldBatch>> {
        self.batches_of(Renew { runner: holder.owner.into(), until_us: holder.until_us() }).await
    }

    /// Gives a batch up, so that any process goes on with it. Nothing changes if it is not held under this epoch any more.
    pub async fn release_batch(&self, held: &HeldBatch) -> Result<()> {
        self.write(Release(held.clone())).await.map(drop)
    }

    async fn batches_of(&self, command: impl Command + 'static) -> Result<Vec<HeldBatch>> {
        match self.write(command).await? {
            Outcome::Batches(held) => Ok(held),
            _ => Ok(Vec::new()),
        }
    }
}

fn held(row: &Row) -> sqlx::Result<HeldBatch> {
    let status = BatchStatus::try_from(row.int(3)? as i32).unwrap_or_default();
    Ok(HeldBatch { tenant: row.text(0)?, batch_id: row.text(1)?, epoch: row.int(2)?, status })
}

/// Ends every lease, in a database that nobody else has open.
pub(crate) async fn end_all(conn: &mut Conn<'_>) -> Result<()> {
    conn.execute(END_ALL, &[]).await.map(drop).map_err(|error| failure::report(&error))
}
