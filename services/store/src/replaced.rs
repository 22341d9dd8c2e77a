//! What a document was, until an insertion in the background takes its place: as long as its chunks are of that. An insertion that
//! fails or is cancelled leaves the document so, with a status that tells it.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::{Document, DocumentStatus};
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    documents::{file_of, parts, status},
    failure,
    sql::{Conn, args},
    turns::micros,
};

const THERE: &str = "SELECT body, status, content, replaces FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
const HOLD: &str = "SELECT body, status, content, replaces FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3 FOR UPDATE";
/// 1 is `IN_PROGRESS`.
const WAITS: &str = "SELECT replaces FROM bank_documents \
                     WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status = 1";
const SET: &str = "UPDATE bank_documents SET replaces = $5 \
                   WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status = 1";
const OF_INGESTION: &str = "SELECT id, revision FROM bank_documents \
                            WHERE tenant = $1 AND bank_id = $2 AND ingestion_id = $3 AND status = 1 AND length(replaces) > 0";
const PUT_BACK: &str = "UPDATE bank_documents SET status = $5, bytes = $6, body = $7, expires_us = $8, content = $9, file_id = $10 \
                        WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status = 1 AND length(replaces) > 0";

/// What the chunks of a document are of, before another insertion takes its row; empty where it has none.
pub(crate) async fn before(conn: &mut Conn<'_>, tenant: &str, bank_id: &str, id: &str) -> Result<Vec<u8>, Failure> {
    let rows = conn.rows_of(THERE, HOLD, args![tenant, bank_id, id]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let replaces = row.bytes(3)?;
    match status(row.int(1)?) {
        DocumentStatus::Completed => {}
        // It was put back.
        DocumentStatus::Failed | DocumentStatus::Cancelled if !replaces.is_empty() => {}
        DocumentStatus::InProgress => return Ok(replaces.to_vec()),
        _ => return Ok(Vec::new()),
    }
    // What cannot be read is nothing to go back to.
    let (Ok(listed), Ok(content)) = (Document::decode(row.bytes(0)?), Document::decode(row.bytes(2)?)) else {
        return Ok(Vec::new());
    };
    Ok(Document { content: content.content, ..listed }.encode_to_vec())
}

/// Puts back what the insertions of an ingestion that is cancelled would have replaced.
pub(crate) async fn cancel(conn: &mut Conn<'_>, tenant: &str, bank_id: &str, ingestion_id: &str) -> Result<(), Failure> {
    let ended = Document { status: DocumentStatus::Cancelled.into(), ingestion_id: ingestion_id.into(), ..Document::default() };
    for row in conn.rows(OF_INGESTION, args![tenant, bank_id, ingestion_id]).await? {
        let (id, revision) = (row.text(0)?, row.text(1)?);
        put_back(conn, (tenant, bank_id, &id), &revision, &ended).await?;
    }
    Ok(())
}

async fn put_back(
    conn: &mut Conn<'_>,
    (tenant, bank_id, id): (&str, &str, &str),
    revision: &str,
    ended: &Document,
) -> Result<bool, Failure> {
    let rows = conn.rows(WAITS, args![tenant, bank_id, id, revision]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let before = row.bytes(0)?;
    if before.is_empty() {
        return Ok(false);
    }
    let Ok(before) = Document::decode(before) else { return Ok(false) };
    let document = Document { status: ended.status, error: ended.error.clone(), ingestion_id: ended.ingestion_id.clone(), ..before };
    let (body, content) = parts(&document);
    let (status, bytes, expires) = (i64::from(document.status), document.bytes as i64, micros(document.expires.as_ref()));
    let args = args![tenant, bank_id, id, revision, status, bytes, &body, expires, &content, file_of(&document)];
    Ok(conn.execute(PUT_BACK, args).await? > 0)
}

struct PutBack {
    tenant: String,
    bank_id: String,
    id: String,
    revision: String,
    ended: Document,
}

#[async_trait]
impl Command for PutBack {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let key = (self.tenant.as_str(), self.bank_id.as_str(), self.id.as_str());
        let is_back = put_back(conn, key, &self.revision, &self.ended).await?;
        Ok(Outcome::Changed(u64::from(is_back)))
    }
}

struct Set {
    tenant: String,
    bank_id: String,
    id: String,
    revision: String,
    replaces: Vec<u8>,
}

#[async_trait]
impl Command for Set {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let args = args![&self.tenant, &self.bank_id, &self.id, &self.revision, &self.replaces];
        Ok(Outcome::Changed(conn.execute(SET, args).await?))
    }
}

impl Store {
    /// Puts a document back as it was before an insertion that ends with the status and the error of `ended`. False, and
    /// nothing is changed, where nothing was there before or it is being replaced.
    pub async fn put_back_document(&self, tenant: &str, bank_id: &str, id: &str, revision: &str, ended: Document) -> Result<bool> {
        let (tenant, bank_id, id, revision) = (tenant.into(), bank_id.into(), id.into(), revision.into());
        Ok(self.write(PutBack { tenant, bank_id, id, revision, ended }).await? != Outcome::Changed(0))
    }

    /// Before a document's chunks are replaced: from now on nothing is put back. What would have been; empty where the document is
    /// new. `None` where its insertion was cancelled, or it is another's by now.
    pub async fn begin_replacing(&self, tenant: &str, bank_id: &str, id: &str, revision: &str) -> Result<Option<Vec<u8>>> {
        let rows = self.read(WAITS, args![tenant, bank_id, id, revision]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let before = row.bytes(0).map_err(|error| failure::report(&error))?.to_vec();
        let is_begun = before.is_empty() || self.replaces(tenant, bank_id, id, revision, Vec::new()).await?;
        Ok(is_begun.then_some(before))
    }

    /// The chunks were not replaced: what was there before, as [`Store::begin_replacing`] gave it, can be put back again.
    pub async fn give_up_replacing(&self, tenant: &str, bank_id: &str, id: &str, revision: &str, before: Vec<u8>) -> Result<()> {
        if before.is_empty() { Ok(()) } else { self.replaces(tenant, bank_id, id, revision, before).await.map(drop) }
    }

    async fn replaces(&self, tenant: &str, bank_id: &str, id: &str, revision: &str, replaces: Vec<u8>) -> Result<bool> {
        let (tenant, bank_id, id, revision) = (tenant.into(), bank_id.into(), id.into(), revision.into());
        Ok(self.write(Set { tenant, bank_id, id, revision, replaces }).await? != Outcome::Changed(0))
    }
}
