//! Batches: what was asked for, how far it is, and the answers of its lines until they are in a file.

mod lease;
mod lines;

use async_trait::async_trait;
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::{Batch, BatchStatus, BatchUsage, Caller};
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    failure,
    lease::lost,
    sql::{Conn, Row, args},
};

pub(crate) use lease::BATCHES;
pub use lease::HeldBatch;
pub use lines::{BatchLine, LineResults, LineUsage};

const INSERT: &str = "INSERT INTO batches (tenant, id, owner, roles, status, total, completed, failed, runner, epoch, lease_until_us, \
                      body, author, models) VALUES ($1, $2, $3, $4, $5, 0, 0, 0, '', 0, 0, $6, $7, 0)";
const GET: &str = "SELECT body, status, total, completed, failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens, model, \
                   models, owner, roles, author FROM batches WHERE tenant = $1 AND id = $2 AND ($3 = '' OR owner = $3)";
const LIST: &str = "SELECT body, status, total, completed, failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens, model, \
                    models FROM batches \
                    WHERE tenant = $1 AND id < $2 AND ($3 = '' OR owner = $3) ORDER BY id DESC LIMIT $4";
/// Those whose bodies have these characters, wherever. SQLite would rather look at all that the tenant ever had.
const NAMING: [&str; 2] = [
    "SELECT body FROM batches INDEXED BY batches_unfinished WHERE tenant = $1 AND status <= 4 AND instr(body, CAST($2 AS BLOB)) > 0",
    "SELECT body FROM batches WHERE tenant = $1 AND status <= 4 AND position(convert_to($2, 'UTF8') IN body) > 0",
];
/// Changes nothing, and holds the row until the transaction ends.
const LOCK: &str = "UPDATE batches SET epoch = epoch WHERE tenant = $1 AND id = $2 AND ($3 = '' OR owner = $3)";
const LOCK_HELD: &str = "UPDATE batches SET epoch = epoch WHERE tenant = $1 AND id = $2 AND epoch = $3";
const READ: &str = "SELECT body, status FROM batches WHERE tenant = $1 AND id = $2";
const CHANGE: &str = "UPDATE batches SET status = $3, body = $4, total = $5 WHERE tenant = $1 AND id = $2";
const CANCEL: &str = "UPDATE batches SET status = $3, body = $4 WHERE tenant = $1 AND id = $2";
const GIVE_UP: &str = "UPDATE batches SET runner = '', lease_until_us = 0 WHERE tenant = $1 AND id = $2";
const FORGET_LINES: &str = "DELETE FROM batch_lines WHERE tenant = $1 AND batch_id = $2";

/// Sorts after every id.
const END: &str = "\u{10FFFF}";

/// Whether a batch has come to its end.
pub fn has_ended(status: BatchStatus) -> bool {
    matches!(status, BatchStatus::Completed | BatchStatus::Failed | BatchStatus::Expired | BatchStatus::Cancelled)
}

struct Insert {
    batch: Batch,
    author: Caller,
}

#[async_trait]
impl Command for Insert {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let (batch, body, tenant) = (&self.batch, self.batch.encode_to_vec(), &self.author.tenant);
        let (roles, author) = (self.author.roles.join(","), self.author.encode_to_vec());
        conn.execute(INSERT, args![tenant, &batch.id, &batch.owner, &roles, i64::from(batch.status), &body, &author]).await?;
        Ok(Outcome::Done)
    }
}

struct Cancel {
    tenant: String,
    id: String,
    owner: String,
}

#[async_trait]
impl Command for Cancel {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        if conn.execute(LOCK, args![&self.tenant, &self.id, &self.owner]).await? == 0 {
            return Err(not_found("batch", &self.id).into());
        }
        let mut batch = stored(conn, &self.tenant, &self.id).await?;
        if matches!(batch.status(), BatchStatus::Validating | BatchStatus::InProgress) {
            batch.set_status(BatchStatus::Cancelling);
            batch.cancelling = Some(ids::now());
            conn.execute(CANCEL, args![&self.tenant, &self.id, i64::from(batch.status), &batch.encode_to_vec()]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct Advance {
    held: HeldBatch,
    batch: Batch,
}

#[async_trait]
impl Command for Advance {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let (tenant, id) = (&self.held.tenant, &self.held.batch_id);
        if conn.execute(LOCK_HELD, args![tenant, id, self.held.epoch]).await? == 0 {
            return Err(lost("batch", id).into());
        }
        let (now, mut next) = (stored(conn, tenant, id).await?, self.batch.clone());
        // Whoever cancelled it did so meanwhile, and is not overruled by a step forward.
        next.cancelling = now.cancelling;
        if now.status() == BatchStatus::Cancelling && !has_ended(next.status()) {
            next.set_status(BatchStatus::Cancelling);
        }
        let body = next.encode_to_vec();
        conn.execute(CHANGE, args![tenant, id, i64::from(next.status), &body, next.total as i64]).await?;
        if has_ended(next.status()) {
            conn.execute(FORGET_LINES, args![tenant, id]).await?;
            conn.execute(GIVE_UP, args![tenant, id]).await?;
        }
        Ok(Outcome::Done)
    }
}

/// As it is now, without its counts.
async fn stored(conn: &mut Conn<'_>, tenant: &str, id: &str) -> Result<Batch, Failure> {
    let rows = conn.rows(READ, args![tenant, id]).await?;
    let row = rows.first().ok_or_else(|| not_found("batch", id))?;
    let mut batch: Batch = failure::decode(row)?;
    batch.status = row.int(1)? as i32;
    Ok(batch)
}

impl Store {
    /// A batch of the author's tenant.
    ///
    /// # Errors
    /// `AlreadyExists` the id is taken
    pub async fn insert_batch(&self, batch: &Batch, author: &Caller) -> Result<()> {
        self.write(Insert { batch: batch.clone(), author: author.clone() }).await.map(drop)
    }

    /// `owner`: only theirs; anyone's where it is empty.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn get_batch(&self, tenant: &str, id: &str, owner: &str) -> Result<Batch> {
        self.batch_and_author(tenant, id, owner).await.map(|(batch, _)| batch)
    }

    /// A batch, and who made it, as they were known then.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn batch_and_author(&self, tenant: &str, id: &str, owner: &str) -> Result<(Batch, Caller)> {
        let rows = self.read(GET, args![tenant, id, owner]).await?;
        let row = rows.first().ok_or_else(|| not_found("batch", id))?;
        let author: Caller = failure::decode_column(row, 13)?;
        if !author.principal.is_empty() {
            return Ok((counted(row)?, author));
        }
        // One that was made before authors were kept.
        let before = || {
            let roles = row.text(12)?.split(',').filter(|role| !role.is_empty()).map(Into::into).collect();
            Ok(Caller { principal: row.text(11)?, tenant: tenant.into(), roles, ..Caller::default() })
        };
        Ok((counted(row)?, before().map_err(|error| failure::report(&error))?))
    }

    /// Whether a batch that has not ended reads this file.
    pub async fn is_batch_input(&self, tenant: &str, file_id: &str) -> Result<bool> {
        let rows = self.read(self.worded(NAMING), args![tenant, file_id]).await?;
        let batches = rows.iter().map(failure::decode).collect::<Result<Vec<Batch>>>()?;
        Ok(batches.iter().any(|batch| batch.input_file_id == file_id))
    }

    /// Newest first, from after the id `after`; from the newest where it is empty.
    pub async fn list_batches(&self, tenant: &str, owner: &str, after: &str, limit: u32) -> Result<Vec<Batch>> {
        let after = if after.is_empty() { END } else { after };
        let rows = self.read(LIST, args![tenant, after, owner, i64::from(limit)]).await?;
        rows.iter().map(counted).collect()
    }

    /// Tells whoever runs it to stop. A batch that is being finished, or has ended, stays as it is.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn cancel_batch(&self, tenant: &str, id: &str, owner: &str) -> Result<Batch> {
        self.write(Cancel { tenant: tenant.into(), id: id.into(), owner: owner.into() }).await?;
        self.get_batch(tenant, id, owner).await
    }

    /// Puts down what the runner has come to, and says what the batch is now: a cancel that came meanwhile stays. At its
    /// end the lines' answers are forgotten, and the lease with them.
    ///
    /// # Errors
    /// `Aborted` it is another's now (`lease_lost`)
    pub async fn advance_batch(&self, held: &HeldBatch, batch: &Batch) -> Result<Batch> {
        self.write(Advance { held: held.clone(), batch: batch.clone() }).await?;
        self.get_batch(&held.tenant, &held.batch_id, "").await
    }
}

/// The batch of a row that begins with body, status, the counts of lines, those of tokens, and its models.
fn counted(row: &Row) -> Result<Batch> {
    let mut batch: Batch = failure::decode(row)?;
    let read = |column| row.int(column).map_err(|error| failure::report(&error));
    batch.status = read(1)? as i32;
    batch.total = read(2)?.unsigned_abs();
    batch.completed = read(3)?.unsigned_abs();
    batch.failed = read(4)?.unsigned_abs();
    let models = read(10)?;
    if models >= 0 {
        let tokens = |column| read(column).map(i64::unsigned_abs);
        let (input_tokens, cached_tokens) = (tokens(5)?, tokens(6)?);
        let (output_tokens, reasoning_tokens) = (tokens(7)?, tokens(8)?);
        batch.usage = Some(BatchUsage { input_tokens, cached_tokens, output_tokens, reasoning_tokens });
    }
    batch.model = if models == 1 { row.text(9).map_err(|error| failure::report(&error))? } else { String::new() };
    Ok(batch)
}
