//! Ingestions: documents that are inserted in the background, counted.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::{DocumentStatus, Ingestion};
use prost_types::Timestamp;

use crate::{
    Store,
    banks::timestamp,
    command::{Command, Failure, Outcome, not_found},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

const INSERT: &str = "INSERT INTO ingestions \
                      (tenant, bank_id, id, created_us, ended_us, status, documents, completed, failed, cancelled, chunks, chunks_embedded) \
                      VALUES ($1, $2, $3, $4, 0, 1, $5, 0, 0, 0, 0, 0)";
const GET: &str = "SELECT created_us, ended_us, status, documents, completed, failed, cancelled, chunks, chunks_embedded \
                   FROM ingestions WHERE tenant = $1 AND bank_id = $2 AND id = $3";
/// While it goes on, its documents say how far it is.
const COUNTS: &str = "SELECT status, COUNT(*) FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND ingestion_id = $3 GROUP BY status";
const PROGRESS: &str = "UPDATE ingestions SET chunks = chunks + $4, chunks_embedded = chunks_embedded + $5 \
                        WHERE tenant = $1 AND bank_id = $2 AND id = $3";
/// 1 is `IN_PROGRESS`, 4 is `CANCELLED`. Nothing waits for the place of a cancelled one.
const CANCEL: &str = "UPDATE bank_documents SET status = 4, waiting = $4, waiting_principal = '', waiting_roles = '' \
                      WHERE tenant = $1 AND bank_id = $2 AND ingestion_id = $3 AND status = 1";
const END: &str = "UPDATE ingestions SET ended_us = $4, status = $5, completed = $6, failed = $7, cancelled = $8 \
                   WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND ended_us = 0";

const UNFINISHED: &str = "SELECT i.tenant, i.bank_id, i.id FROM ingestions i JOIN banks b ON b.tenant = i.tenant AND b.id = i.bank_id \
                          WHERE b.provider_id = $1 AND b.doomed = 0 AND i.ended_us = 0";

/// Counts what became of its documents, once and for all. One whose documents another ingestion took over is completed.
struct End {
    tenant: String,
    bank_id: String,
    id: String,
    cancel: bool,
    now_us: i64,
}

#[async_trait]
impl Command for End {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let key = args![&self.tenant, &self.bank_id, &self.id];
        if self.cancel {
            conn.execute(CANCEL, args![&self.tenant, &self.bank_id, &self.id, &Vec::<u8>::new()]).await?;
        }
        let counts = Counts::of(&conn.rows(COUNTS, key).await?)?;
        if counts.in_progress > 0 {
            return Ok(Outcome::Changed(0));
        }
        let status = counts.status();
        let Counts { completed, failed, cancelled, .. } = counts;
        let args = args![&self.tenant, &self.bank_id, &self.id, self.now_us, i64::from(i32::from(status)), completed, failed, cancelled];
        Ok(Outcome::Changed(conn.execute(END, args).await?))
    }
}

#[derive(Default)]
struct Counts {
    in_progress: i64,
    completed: i64,
    failed: i64,
    cancelled: i64,
}

impl Counts {
    fn of(rows: &[Row]) -> sqlx::Result<Self> {
        let mut counts = Self::default();
        for row in rows {
            let count = row.int(1)?;
            match row.int(0)? {
                1 => counts.in_progress = count,
                2 => counts.completed = count,
                3 => counts.failed = count,
                4 => counts.cancelled = count,
                _ => {}
            }
        }
        Ok(counts)
    }

    fn status(&self) -> DocumentStatus {
        match self {
            Self { in_progress: 1.., .. } => DocumentStatus::InProgress,
            Self { cancelled: 1.., .. } => DocumentStatus::Cancelled,
            Self { failed: 1.., completed: 0, .. } => DocumentStatus::Failed,
            _ => DocumentStatus::Completed,
        }
    }
}

pub(crate) async fn insert(conn: &mut Conn<'_>, tenant: &str, ingestion: &Ingestion) -> sqlx::Result<()> {
    let (created, documents) = (micros(ingestion.created.as_ref()), i64::from(ingestion.documents));
    conn.execute(INSERT, args![tenant, &ingestion.bank_id, &ingestion.id, created, documents]).await.map(drop)
}

pub(crate) async fn progress(conn: &mut Conn<'_>, tenant: &str, bank: &str, id: &str, (read, embedded): (u64, u64)) -> sqlx::Result<()> {
    conn.execute(PROGRESS, args![tenant, bank, id, read as i64, embedded as i64]).await.map(drop)
}

impl Store {
    /// # Errors
    /// `NotFound`
    pub async fn get_ingestion(&self, tenant: &str, bank_id: &str, id: &str) -> Result<Ingestion> {
        let rows = self.read(GET, args![tenant, bank_id, id]).await?;
        let row = rows.first().ok_or_else(|| not_found("ingestion", id))?;
        let mut ingestion = read(row, bank_id, id).map_err(|error| failure::report(&error))?;
        if ingestion.ended.is_none() {
            let rows = self.read(COUNTS, args![tenant, bank_id, id]).await?;
            let counts = Counts::of(&rows).map_err(|error| failure::report(&error))?;
            (ingestion.completed, ingestion.failed) = (counts.completed as u32, counts.failed as u32);
            ingestion.cancelled = counts.cancelled as u32;
            // Who counts that none is under way finds it ended, though its end is not written yet.
            ingestion.status = counts.status().into();
        }
        Ok(ingestion)
    }

    /// Tenant, bank and id of a provider's ingestions that have not ended, of all tenants.
    pub async fn unfinished_ingestions(&self, provider_id: &str) -> Result<Vec<(String, String, String)>> {
        let rows = self.read(UNFINISHED, args![provider_id]).await?;
        let read = |row: &Row| Ok((row.text(0)?, row.text(1)?, row.text(2)?));
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// Ends the ingestion if none of its documents is under way; with `cancel`, what has not ended is cancelled first.
    /// Idempotent.
    pub async fn end_ingestion(&self, tenant: &str, bank_id: &str, id: &str, cancel: bool, now: &Timestamp) -> Result<()> {
        let command = End { tenant: tenant.into(), bank_id: bank_id.into(), id: id.into(), cancel, now_us: micros(Some(now)) };
        self.write(command).await.map(drop)
    }
}

fn read(row: &Row, bank_id: &str, id: &str) -> sqlx::Result<Ingestion> {
    let count = |column| row.int(column).map(|count| count as u32);
    Ok(Ingestion {
        id: id.into(),
        bank_id: bank_id.into(),
        created: Some(timestamp(row.int(0)?)),
        ended: Some(row.int(1)?).filter(|ended| *ended > 0).map(timestamp),
        status: row.int(2)? as i32,
        documents: count(3)?,
        completed: count(4)?,
        failed: count(5)?,
        cancelled: count(6)?,
        chunks: row.int(7)? as u64,
        chunks_embedded: row.int(8)? as u64,
    })
}
