//! Which lines of a batch were run, and what they were answered.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::BatchStatus;

use super::{HeldBatch, LOCK_HELD, READ};
use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    failure,
    lease::lost,
    sql::{Conn, Row, args},
};

const RECORD: &str = "INSERT INTO batch_lines (tenant, batch_id, line, failed, body) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, batch_id, line) DO NOTHING";
const COUNT: &str = "UPDATE batches SET completed = completed + 1 - $3, failed = failed + $3 WHERE tenant = $1 AND id = $2";
const NUMBERS: &str = "SELECT line FROM batch_lines WHERE tenant = $1 AND batch_id = $2";
const RESULTS: &str = "SELECT line, body FROM batch_lines WHERE tenant = $1 AND batch_id = $2 AND failed = $3 AND line > $4 \
                       ORDER BY line LIMIT $5";

/// The answer of a line, as it stands in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLine {
    /// In the input, from 1.
    pub line: u64,
    /// It belongs into the file of errors.
    pub failed: bool,
    pub body: Vec<u8>,
}

/// Which answers to read.
#[derive(Clone, Copy, Debug)]
pub struct LineResults {
    pub failed: bool,
    /// The line after which to go on; 0 at the beginning.
    pub after: u64,
    pub limit: u32,
}

struct Record {
    held: HeldBatch,
    result: BatchLine,
}

#[async_trait]
impl Command for Record {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let (tenant, id, failed) = (&self.held.tenant, &self.held.batch_id, i64::from(self.result.failed));
        if conn.execute(LOCK_HELD, args![tenant, id, self.held.epoch]).await? == 0 {
            return Err(lost("batch", id).into());
        }
        if conn.execute(RECORD, args![tenant, id, self.result.line as i64, failed, &self.result.body]).await? > 0 {
            conn.execute(COUNT, args![tenant, id, failed]).await?;
        }
        let rows = conn.rows(READ, args![tenant, id]).await?;
        Ok(Outcome::Status(rows.first().ok_or_else(|| not_found("batch", id))?.int(1)?))
    }
}

impl Store {
    /// Keeps a line's answer, durable on return, and says what the batch is now. The first answer of a line stays.
    ///
    /// # Errors
    /// `Aborted` the batch is another's now (`lease_lost`)
    pub async fn record_batch_line(&self, held: &HeldBatch, result: BatchLine) -> Result<BatchStatus> {
        match self.write(Record { held: held.clone(), result }).await? {
            Outcome::Status(status) => Ok(BatchStatus::try_from(status as i32).unwrap_or_default()),
            _ => Ok(BatchStatus::Unspecified),
        }
    }

    /// The lines whose answers are kept.
    pub async fn recorded_batch_lines(&self, held: &HeldBatch) -> Result<Vec<u64>> {
        let rows = self.read(NUMBERS, args![&held.tenant, &held.batch_id]).await?;
        let numbers = rows.iter().map(|row| row.int(0).map(i64::unsigned_abs));
        numbers.collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// Answers in the order of the input.
    pub async fn batch_results(&self, held: &HeldBatch, which: LineResults) -> Result<Vec<BatchLine>> {
        let failed = which.failed;
        let args = args![&held.tenant, &held.batch_id, i64::from(failed), which.after as i64, i64::from(which.limit)];
        let rows = self.read(RESULTS, args).await?;
        let read = |row: &Row| Ok(BatchLine { line: row.int(0)?.unsigned_abs(), failed, body: row.bytes(1)?.to_vec() });
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }
}
