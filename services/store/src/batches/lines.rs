//! Which lines of a batch were run, and what they were answered.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::{BatchStatus, BatchUsage};

use super::{HeldBatch, LOCK_HELD, READ};
use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    failure,
    lease::lost,
    sql::{Conn, Row, args},
};

const RECORD: &str = "INSERT INTO batch_lines (tenant, batch_id, line, failed, body) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, batch_id, line) DO NOTHING";
const COUNT: &str = "UPDATE batches SET completed = completed + 1 - $3, failed = failed + $3, input_tokens = input_tokens + $4, \
                     cached_tokens = cached_tokens + $5, output_tokens = output_tokens + $6, reasoning_tokens = reasoning_tokens + $7, \
                     model = CASE WHEN models = 0 THEN $8 ELSE model END, \
                     models = CASE WHEN $8 = '' OR models NOT IN (0, 1) THEN models WHEN models = 0 OR model = $8 THEN 1 ELSE 2 END \
                     WHERE tenant = $1 AND id = $2";
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

/// What an answer says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineUsage {
    pub tokens: BatchUsage,
    /// Empty where it names none.
    pub model: String,
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
    used: LineUsage,
}

#[async_trait]
impl Command for Record {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let (tenant, id, failed) = (&self.held.tenant, &self.held.batch_id, i64::from(self.result.failed));
        if conn.execute(LOCK_HELD, args![tenant, id, self.held.epoch]).await? == 0 {
            return Err(lost("batch", id).into());
        }
        if conn.execute(RECORD, args![tenant, id, self.result.line as i64, failed, &self.result.body]).await? > 0 {
            let LineUsage { tokens, model } = &self.used;
            let [input, cached] = [tokens.input_tokens, tokens.cached_tokens].map(counted);
            let [output, reasoning] = [tokens.output_tokens, tokens.reasoning_tokens].map(counted);
            conn.execute(COUNT, args![tenant, id, failed, input, cached, output, reasoning, model]).await?;
        }
        let rows = conn.rows(READ, args![tenant, id]).await?;
        Ok(Outcome::Status(rows.first().ok_or_else(|| not_found("batch", id))?.int(1)?))
    }
}

/// As the contract counts the tokens of one answer: sums of these fit a column, whatever an answer claims.
fn counted(tokens: u64) -> i64 {
    i64::from(u32::try_from(tokens).unwrap_or(u32::MAX))
}

impl Store {
    /// Keeps a line's answer, durable on return, adds up what it used, and says what the batch is now. The first answer of a line
    /// stays, and what another one used is not counted.
    ///
    /// # Errors
    /// `Aborted` the batch is another's now (`lease_lost`)
    pub async fn record_batch_line(&self, held: &HeldBatch, result: BatchLine, used: LineUsage) -> Result<BatchStatus> {
        match self.write(Record { held: held.clone(), result, used }).await? {
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
