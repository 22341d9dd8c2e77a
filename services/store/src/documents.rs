//! Documents of banks: what was inserted, for whom, and how far it has come. Their chunks are in an index.

use async_trait::async_trait;
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::{Document, DocumentStatus, Ingestion, document::Content};
use prost::Message as _;
use prost_types::Timestamp;

use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    failure,
    ingestions::{self, progress},
    sql::{Conn, Row, args},
    turns::{marks, micros},
};

/// A document that is there keeps its place; all else is the new one's.
const PUT: &str = "INSERT INTO bank_documents \
                   (tenant, bank_id, id, place, revision, ingestion_id, status, principal, roles, bytes, expires_us, body, content, worker, \
                   file_id) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
                   ON CONFLICT (tenant, bank_id, id) DO UPDATE SET revision = excluded.revision, ingestion_id = excluded.ingestion_id, \
                   status = excluded.status, principal = excluded.principal, roles = excluded.roles, bytes = excluded.bytes, \
                   expires_us = excluded.expires_us, body = excluded.body, content = excluded.content, worker = excluded.worker, \
                   file_id = excluded.file_id";
const SETTLE: &str = "UPDATE bank_documents SET status = $5, bytes = $6, body = $7, expires_us = $8 \
                      WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4";
const PUT_CONTENT: &str = "UPDATE bank_documents SET body = $5, content = $6, revision = $7 \
                           WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4";
/// 2 is `COMPLETED`.
const RENEW: &str = "UPDATE bank_documents SET revision = $5 \
                     WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status = 2";
const GET: &str = "SELECT body, status, content, revision FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
const REVISION: &str = "SELECT revision FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
const OLDEST: &str = "SELECT body, status, place FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND place > $3 \
                      AND ($5 = 0 OR status = $5) AND ($6 = '' OR ingestion_id = $6) AND (expires_us = 0 OR expires_us > $7) \
                      ORDER BY place LIMIT $4";
const NEWEST: &str = "SELECT body, status, place FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND place < $3 \
                      AND ($5 = 0 OR status = $5) AND ($6 = '' OR ingestion_id = $6) AND (expires_us = 0 OR expires_us > $7) \
                      ORDER BY place DESC LIMIT $4";
const DELETE: &str = "DELETE FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
const COUNTS: &str =
    "SELECT status, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM bank_documents WHERE tenant = $1 AND bank_id = $2 GROUP BY status";
const OF_TENANT: &str = "SELECT CAST(COALESCE(SUM(d.bytes), 0) AS BIGINT) FROM bank_documents d \
                         JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                         WHERE b.tenant = $1 AND b.provider_id = $2 AND b.doomed = 0 AND NOT (d.bank_id = $3 AND d.id = $4)";
const EXPIRED: &str = "SELECT id FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND expires_us > 0 AND expires_us <= $3";
const ALL_EXPIRED: &str = "SELECT d.tenant, d.bank_id, d.id FROM bank_documents d JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                           WHERE b.provider_id = $1 AND d.expires_us > 0 AND d.expires_us <= $2 LIMIT 1000";
const OF_FILE: &str = "SELECT d.bank_id, d.id FROM bank_documents d JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                       WHERE d.tenant = $1 AND d.file_id = $2 AND b.doomed = 0";
/// 1 is `IN_PROGRESS`. A change of nothing, so that of two at the same time one waits for the other.
const IS_PENDING: &str =
    "UPDATE bank_documents SET status = 1 WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status = 1";

/// On whose behalf a document is inserted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    pub principal: String,
    pub roles: Vec<String>,
}

/// A document as it is inserted: with its content, its status, and a name for just this insertion.
#[derive(Clone, Debug)]
pub struct InsertedDocument {
    pub document: Document,
    pub revision: String,
}

/// A document whose insertion has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingDocument {
    pub tenant: String,
    pub bank_id: String,
    pub id: String,
    /// Empty where it was inserted in the foreground.
    pub ingestion_id: String,
    pub author: Author,
}

/// Which documents of a bank, in which order, from where.
#[derive(Clone, Copy, Debug, Default)]
pub struct DocumentList<'a> {
    /// A `DocumentStatus`; 0: all.
    pub status: i32,
    /// Empty: all.
    pub ingestion_id: &'a str,
    pub newest_first: bool,
    /// 0 means 100, at most 1,000.
    pub page_size: u32,
    pub page_token: &'a str,
}

struct Put {
    tenant: String,
    bank_id: String,
    author: Author,
    worker: String,
    documents: Vec<InsertedDocument>,
    ingestion: Option<Ingestion>,
}

#[async_trait]
impl Command for Put {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        if let Some(ingestion) = &self.ingestion {
            ingestions::insert(conn, &self.tenant, ingestion).await?;
        }
        let roles = self.author.roles.join(",");
        for InsertedDocument { document, revision } in &self.documents {
            let (body, content) = parts(document);
            let place = format!("{:020}{}", micros(document.created.as_ref()), document.id);
            let (status, bytes) = (i64::from(document.status), document.bytes as i64);
            let expires = micros(document.expires.as_ref());
            let args = args![
                &self.tenant,
                &self.bank_id,
                &document.id,
                &place,
                revision,
                &document.ingestion_id,
                status,
                &self.author.principal,
                &roles,
                bytes,
                expires,
                &body,
                &content,
                &self.worker,
                file_of(document)
            ];
            conn.execute(PUT, args).await?;
        }
        Ok(Outcome::Done)
    }
}

struct Settle {
    tenant: String,
    bank_id: String,
    document: Document,
    revision: String,
    /// Chunks read and embedded, for the ingestion.
    progress: (u64, u64),
}

#[async_trait]
impl Command for Settle {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let document = &self.document;
        let (body, _) = parts(document);
        let (status, bytes, expires) = (i64::from(document.status), document.bytes as i64, micros(document.expires.as_ref()));
        let args = args![&self.tenant, &self.bank_id, &document.id, &self.revision, status, bytes, &body, expires];
        // Of two who inserted it, one counts.
        let pending = conn.execute(IS_PENDING, args![&self.tenant, &self.bank_id, &document.id, &self.revision]).await? > 0;
        let changed = conn.execute(SETTLE, args).await?;
        if pending && changed > 0 && !document.ingestion_id.is_empty() {
            progress(conn, &self.tenant, &self.bank_id, &document.ingestion_id, self.progress).await?;
        }
        Ok(Outcome::Changed(changed))
    }
}

struct Renew {
    tenant: String,
    bank_id: String,
    id: String,
    revision: String,
    next: String,
}

#[async_trait]
impl Command for Renew {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let args = args![&self.tenant, &self.bank_id, &self.id, &self.revision, &self.next];
        Ok(Outcome::Changed(conn.execute(RENEW, args).await?))
    }
}

struct PutContent {
    tenant: String,
    bank_id: String,
    document: InsertedDocument,
    next: String,
}

#[async_trait]
impl Command for PutContent {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let InsertedDocument { document, revision } = &self.document;
        let (body, content) = parts(document);
        let args = args![&self.tenant, &self.bank_id, &document.id, revision, &body, &content, &self.next];
        Ok(Outcome::Changed(conn.execute(PUT_CONTENT, args).await?))
    }
}

struct Delete {
    tenant: String,
    bank_id: String,
    ids: Vec<String>,
}

#[async_trait]
impl Command for Delete {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let mut deleted = Vec::new();
        // In the order in which a turn holds those that it quotes.
        let mut ids: Vec<&String> = self.ids.iter().collect();
        ids.sort_unstable();
        for id in ids {
            if conn.execute(DELETE, args![&self.tenant, &self.bank_id, id]).await? > 0 {
                deleted.push(id);
            }
        }
        marks::bury(conn, &self.tenant, &self.bank_id, &deleted).await?;
        Ok(Outcome::Changed(deleted.len() as u64))
    }
}

impl Store {
    /// Stores documents, each in place of what its id was before, and the ingestion that brings them: all or none.
    /// `worker` goes on with those that are in progress.
    ///
    /// # Errors
    /// `NotFound` no such bank
    pub async fn put_documents(
        &self,
        tenant: &str,
        bank_id: &str,
        author: &Author,
        worker: &str,
        documents: Vec<InsertedDocument>,
        ingestion: Option<Ingestion>,
    ) -> Result<()> {
        let (tenant, bank_id, worker) = (tenant.into(), bank_id.into(), worker.into());
        let command = Put { tenant, bank_id, author: author.clone(), worker, documents, ingestion };
        self.write(command).await.map(drop)
    }

    /// Stores how a document's insertion ended, or what has changed of it since, but not its content; `chunks` were read
    /// and so many of them embedded. False where the document is another's by now, or gone.
    pub async fn settle_document(
        &self,
        tenant: &str,
        bank_id: &str,
        document: &Document,
        revision: &str,
        progress: (u64, u64),
    ) -> Result<bool> {
        let (tenant, bank_id, revision) = (tenant.into(), bank_id.into(), revision.into());
        let command = Settle { tenant, bank_id, document: document.clone(), revision, progress };
        Ok(self.write(command).await? != Outcome::Changed(0))
    }

    /// A new name for a completed document, before its chunks are changed: who has its row from before, as a backup has, learns that
    /// they are not those of that row. One that is being inserted keeps its name, by which its insertion goes. `None` where the
    /// document is another's by now, or gone.
    pub async fn renew_document(&self, tenant: &str, bank_id: &str, id: &str, revision: &str) -> Result<Option<String>> {
        let next = ids::new("rev");
        let command =
            Renew { tenant: tenant.into(), bank_id: bank_id.into(), id: id.into(), revision: revision.into(), next: next.clone() };
        if self.write(command).await? != Outcome::Changed(0) {
            return Ok(Some(next));
        }
        Ok(self.document_revision(tenant, bank_id, id).await?.filter(|there| there == revision))
    }

    /// Stores a document's content, and what is said of it, under a new name: of two who have read the same, one writes. False where
    /// the document is another's by now, or gone.
    pub async fn put_document_content(&self, tenant: &str, bank_id: &str, document: InsertedDocument) -> Result<bool> {
        let command = PutContent { tenant: tenant.into(), bank_id: bank_id.into(), document, next: ids::new("rev") };
        Ok(self.write(command).await? != Outcome::Changed(0))
    }

    /// With its content, and the name of the insertion that brought it.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn get_document(&self, tenant: &str, bank_id: &str, id: &str) -> Result<InsertedDocument> {
        let rows = self.read(GET, args![tenant, bank_id, id]).await?;
        let row = rows.first().ok_or_else(|| not_found("document", id))?;
        let mut document = read(row)?;
        let report = |error: sqlx::Error| failure::report(&error);
        document.content = failure::decode_column::<Document>(row, 2)?.content;
        Ok(InsertedDocument { document, revision: row.text(3).map_err(report)? })
    }

    /// The name of the insertion that brought it, if it is there.
    pub async fn document_revision(&self, tenant: &str, bank_id: &str, id: &str) -> Result<Option<String>> {
        let rows = self.read(REVISION, args![tenant, bank_id, id]).await?;
        rows.first().map(|row| row.text(0)).transpose().map_err(|error| failure::report(&error))
    }

    /// A page, without content, in the order in which they came first, and the token of the next (empty at the end).
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_documents(
        &self,
        tenant: &str,
        bank_id: &str,
        list: DocumentList<'_>,
        now: &Timestamp,
    ) -> Result<(Vec<Document>, String)> {
        let order = if list.newest_first { "newest" } else { "oldest" };
        let name = format!("documents/{bank_id}/{order}/{}/{}", list.status, list.ingestion_id);
        let page = self.page(&[tenant, &name], list.page_size, list.page_token).await?;
        let (sql, from) = if list.newest_first { (NEWEST, page.newest_first()) } else { (OLDEST, page.oldest_first()) };
        let args = args![tenant, bank_id, from, page.limit(), i64::from(list.status), list.ingestion_id, micros(Some(now))];
        let rows = self.read(sql, args).await?;
        let placed = |row: &Row| Ok((row.text(2).map_err(|error| failure::report(&error))?, read(row)?));
        let documents = rows.iter().map(placed).collect::<Result<Vec<(String, Document)>>>()?;
        let (documents, next) = page.cut(documents, |(place, _)| place)?;
        Ok((documents.into_iter().map(|(_, document)| document).collect(), next))
    }

    /// How many there were of these. Their chunks are the index's to remove, first; what journals of turns quote of them goes
    /// with them.
    pub async fn delete_documents(&self, tenant: &str, bank_id: &str, ids: &[String]) -> Result<u64> {
        self.forget_quotes(tenant, bank_id, ids).await?;
        let command = Delete { tenant: tenant.into(), bank_id: bank_id.into(), ids: ids.to_vec() };
        let outcome = self.write(command).await?;
        // What was found just before, and is quoted since.
        self.forget_quotes(tenant, bank_id, ids).await?;
        self.fold_log().await;
        Ok(match outcome {
            Outcome::Changed(deleted) => deleted,
            _ => 0,
        })
    }

    /// Bank and id of the documents that were made of a file.
    pub async fn documents_of_file(&self, tenant: &str, file_id: &str) -> Result<Vec<(String, String)>> {
        let rows = self.read(OF_FILE, args![tenant, file_id]).await?;
        let read = |row: &Row| Ok((row.text(0)?, row.text(1)?));
        let found = rows.iter().map(read).collect::<sqlx::Result<Vec<(String, String)>>>();
        let mut found = found.map_err(|error| failure::report(&error))?;
        // Sorted here: asked for an order, SQLite walks all of the tenant's documents in it.
        found.sort_unstable();
        Ok(found)
    }

    /// Documents and their bytes, by status.
    pub async fn count_documents(&self, tenant: &str, bank_id: &str) -> Result<Vec<(DocumentStatus, u64, u64)>> {
        let rows = self.read(COUNTS, args![tenant, bank_id]).await?;
        let read = |row: &Row| Ok((status(row.int(0)?), row.int(1)? as u64, row.int(2)? as u64));
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// The bytes of a tenant's documents in a provider's banks, but for this one.
    pub async fn document_bytes(&self, tenant: &str, provider_id: &str, bank_id: &str, but_for: &str) -> Result<u64> {
        let rows = self.read(OF_TENANT, args![tenant, provider_id, bank_id, but_for]).await?;
        let bytes = rows.first().map(|row| row.int(0)).transpose().map_err(|error| failure::report(&error))?;
        Ok(bytes.unwrap_or_default().unsigned_abs())
    }

    /// The ids of a bank's documents that have expired by `now` and are not deleted yet.
    pub async fn expired_documents(&self, tenant: &str, bank_id: &str, now: &Timestamp) -> Result<Vec<String>> {
        let rows = self.read(EXPIRED, args![tenant, bank_id, micros(Some(now))]).await?;
        rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// Tenant, bank and id of a provider's documents that have expired by `now`, of all tenants; at most 1,000.
    pub async fn all_expired_documents(&self, provider_id: &str, now: &Timestamp) -> Result<Vec<(String, String, String)>> {
        let rows = self.read(ALL_EXPIRED, args![provider_id, micros(Some(now))]).await?;
        let read = |row: &Row| Ok((row.text(0)?, row.text(1)?, row.text(2)?));
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }
}

/// The file that it is made of; empty where it is none.
fn file_of(document: &Document) -> &str {
    match &document.content {
        Some(Content::FileId(id)) => id,
        _ => "",
    }
}

/// What is read in lists, and the content.
fn parts(document: &Document) -> (Vec<u8>, Vec<u8>) {
    let content = Document { content: document.content.clone(), ..Document::default() };
    // Of a file the list says which.
    let listed = document.content.clone().filter(|content| matches!(content, Content::FileId(_)));
    (Document { content: listed, ..document.clone() }.encode_to_vec(), content.encode_to_vec())
}

/// A cancelled document's body has not heard of it.
fn read(row: &Row) -> Result<Document> {
    let mut document: Document = failure::decode(row)?;
    document.status = status(row.int(1).map_err(|error| failure::report(&error))?).into();
    Ok(document)
}

fn status(stored: i64) -> DocumentStatus {
    i32::try_from(stored).ok().and_then(|status| DocumentStatus::try_from(status).ok()).unwrap_or(DocumentStatus::Unspecified)
}
