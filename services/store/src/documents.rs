//! Documents of banks: what was inserted, for whom, and how far it has come. Their chunks are in an index.

use std::collections::HashMap;

use async_trait::async_trait;
use llama_stack_core::{Error, Result, ids};
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
                   file_id = excluded.file_id, waiting = excluded.waiting, waiting_principal = '', waiting_roles = '', \
                   version = CASE WHEN bank_documents.version = '-' THEN '' ELSE bank_documents.version END";
/// One that is to be inserted: where there is one whose chunks are found, it waits beside it.
const PUT_WAITING: &str = "INSERT INTO bank_documents \
                           (tenant, bank_id, id, place, revision, ingestion_id, status, principal, roles, bytes, expires_us, body, content, \
                           worker, file_id, version) \
                           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, '-') \
                           ON CONFLICT (tenant, bank_id, id) DO UPDATE SET revision = excluded.revision, \
                           ingestion_id = excluded.ingestion_id, status = excluded.status, worker = excluded.worker, \
                           principal = CASE WHEN bank_documents.version = '-' THEN excluded.principal ELSE bank_documents.principal END, \
                           roles = CASE WHEN bank_documents.version = '-' THEN excluded.roles ELSE bank_documents.roles END, \
                           bytes = CASE WHEN bank_documents.version = '-' THEN excluded.bytes ELSE bank_documents.bytes END, \
                           expires_us = CASE WHEN bank_documents.version = '-' THEN excluded.expires_us ELSE bank_documents.expires_us END, \
                           body = CASE WHEN bank_documents.version = '-' THEN excluded.body ELSE bank_documents.body END, \
                           content = CASE WHEN bank_documents.version = '-' THEN excluded.content ELSE bank_documents.content END, \
                           file_id = CASE WHEN bank_documents.version = '-' THEN excluded.file_id ELSE bank_documents.file_id END, \
                           waiting = CASE WHEN bank_documents.version = '-' THEN excluded.waiting ELSE $16 END, \
                           waiting_principal = CASE WHEN bank_documents.version = '-' THEN '' ELSE excluded.principal END, \
                           waiting_roles = CASE WHEN bank_documents.version = '-' THEN '' ELSE excluded.roles END";
/// 1 is `IN_PROGRESS`: what waits goes on waiting, and else it is over. What was cancelled, 4, is not completed after all.
const SETTLE: &str = "UPDATE bank_documents SET status = $5, bytes = $6, body = $7, expires_us = $8, \
                      version = CASE WHEN $9 = '' THEN version ELSE $9 END, waiting = CASE WHEN $5 = 1 THEN waiting ELSE $10 END, \
                      waiting_principal = CASE WHEN $5 = 1 THEN waiting_principal ELSE '' END, \
                      waiting_roles = CASE WHEN $5 = 1 THEN waiting_roles ELSE '' END \
                      WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND NOT (status = 4 AND $5 = 2 AND $9 <> '')";
/// What waited takes the place.
const REPLACE: &str = "UPDATE bank_documents SET status = $5, bytes = $6, body = $7, expires_us = $8, \
                       version = CASE WHEN $9 = '' THEN version ELSE $9 END, waiting = $10, content = $11, file_id = $12, \
                       principal = waiting_principal, roles = waiting_roles, waiting_principal = '', waiting_roles = '' \
                       WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND length(waiting) > 0";
/// The same before it has chunks, under another name: whoever is at it learns that what it found there has gone.
const LET_GO: &str = "UPDATE bank_documents SET bytes = $5, body = $6, expires_us = $7, version = '-', waiting = $8, content = $9, \
                      file_id = $10, revision = $11, principal = waiting_principal, roles = waiting_roles, waiting_principal = '', \
                      waiting_roles = '' WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND length(waiting) > 0";
/// 2 is `COMPLETED`. Of one that was given by its chunks there is nothing to read.
const REDO: &str = "UPDATE bank_documents SET status = 1, version = '-', worker = $4 \
                    WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND status = 2 AND length(content) > 0";
const PUT_NEXT: &str = "UPDATE bank_documents SET waiting = $5 \
                        WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND length(waiting) > 0";
const PUT_CONTENT: &str = "UPDATE bank_documents SET body = $5, content = $6, revision = $7 \
                           WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4";
/// 1 is `IN_PROGRESS`.
const RENEW: &str = "UPDATE bank_documents SET revision = $5 \
                     WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status <> 1";
const RENAME_INSERTION: &str = "UPDATE bank_documents SET revision = $5 \
                                WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND revision = $4 AND status = 1";
const GET: &str = "SELECT body, status, ingestion_id, content, revision, version, waiting FROM bank_documents \
                   WHERE tenant = $1 AND bank_id = $2 AND id = $3";
/// Of these documents, and the version that is being stored in its place.
const VERSIONS: [&str; 2] = [
    "SELECT id, version, CASE WHEN status = 1 THEN revision ELSE version END FROM bank_documents \
     WHERE tenant = $1 AND bank_id = $2 AND id IN (SELECT value FROM json_each($3))",
    "SELECT id, version, CASE WHEN status = 1 THEN revision ELSE version END FROM bank_documents \
     WHERE tenant = $1 AND bank_id = $2 AND id IN (SELECT json_array_elements_text(CAST($3 AS json)))",
];
const REVISION: &str = "SELECT revision FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
const OLDEST: &str = "SELECT body, status, ingestion_id, place FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND place > $3 \
                      AND ($5 = 0 OR status = $5) AND ($6 = '' OR ingestion_id = $6) AND (expires_us = 0 OR expires_us > $7) \
                      ORDER BY place LIMIT $4";
const NEWEST: &str = "SELECT body, status, ingestion_id, place FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND place < $3 \
                      AND ($5 = 0 OR status = $5) AND ($6 = '' OR ingestion_id = $6) AND (expires_us = 0 OR expires_us > $7) \
                      ORDER BY place DESC LIMIT $4";
const DELETE: &str = "DELETE FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
const COUNTS: &str =
    "SELECT status, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM bank_documents WHERE tenant = $1 AND bank_id = $2 GROUP BY status";
const OF_TENANT: &str = "SELECT CAST(COALESCE(SUM(d.bytes + length(d.waiting)), 0) AS BIGINT) FROM bank_documents d \
                         JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                         WHERE b.tenant = $1 AND b.provider_id = $2 AND b.doomed = 0 AND NOT (d.bank_id = $3 AND d.id = $4)";
const EXPIRED: &str = "SELECT id FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND expires_us > 0 AND expires_us <= $3";
const EXPIRED_IN_WAIT: &str = "SELECT id FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND expires_us > 0 AND expires_us <= $3 \
                               AND status = 1 AND length(waiting) > 0";
const ALL_EXPIRED: &str = "SELECT d.tenant, d.bank_id, d.id FROM bank_documents d JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                           WHERE b.provider_id = $1 AND d.expires_us > 0 AND d.expires_us <= $2 LIMIT 1000";
const OF_FILE: &str = "SELECT d.bank_id, d.id FROM bank_documents d JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                       WHERE d.tenant = $1 AND d.file_id = $2 AND b.doomed = 0 \
                       UNION SELECT bank_id, document_id FROM handed_documents WHERE tenant = $1 AND file_id = $2";
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

/// A document as it is kept.
#[derive(Clone, Debug)]
pub struct KeptDocument {
    /// What its chunks are of, where it has any; its status and its error are those of what was inserted last.
    pub document: Document,
    /// The name of the insertion that was last.
    pub revision: String,
    /// Which chunks are its own. [`NO_VERSION`]: none are; empty: those that say nothing of a version.
    pub version: String,
    /// What is inserted in its place.
    pub waiting: Option<Document>,
}

/// Of a document that no chunk is of.
pub const NO_VERSION: &str = "-";

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
            let is_waiting = document.status() == DocumentStatus::InProgress;
            let waits = if is_waiting { document.encode_to_vec() } else { Vec::new() };
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
                file_of(document),
                &waits
            ];
            if is_waiting {
                conn.execute(PUT_WAITING, args).await?;
            } else {
                conn.execute(PUT, &args[..args.len() - 1]).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

struct Settle {
    tenant: String,
    bank_id: String,
    document: Document,
    revision: String,
    /// Which chunks are its own from now on. Empty: those that were.
    version: String,
    /// Chunks read and embedded, for the ingestion.
    progress: (u64, u64),
}

#[async_trait]
impl Command for Settle {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let document = &self.document;
        let ((body, content), nothing) = (parts(document), Vec::<u8>::new());
        let (status, bytes, expires) = (i64::from(document.status), document.bytes as i64, micros(document.expires.as_ref()));
        let args = args![
            &self.tenant,
            &self.bank_id,
            &document.id,
            &self.revision,
            status,
            bytes,
            &body,
            expires,
            &self.version,
            &nothing,
            &content,
            file_of(document)
        ];
        // Of two who inserted it, one counts.
        let pending = conn.execute(IS_PENDING, &args[..4]).await? > 0;
        let mut changed = 0;
        if document.status() == DocumentStatus::Completed {
            changed = conn.execute(REPLACE, args).await?;
        }
        if changed == 0 {
            changed = conn.execute(SETTLE, &args[..10]).await?;
        }
        if pending && changed > 0 && !document.ingestion_id.is_empty() {
            progress(conn, &self.tenant, &self.bank_id, &document.ingestion_id, self.progress).await?;
        }
        Ok(Outcome::Changed(changed))
    }
}

/// Puts what waits for a document's place into it, as it came.
struct LetGo {
    tenant: String,
    bank_id: String,
    waiting: Document,
    revision: String,
    next: String,
}

#[async_trait]
impl Command for LetGo {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let document = &self.waiting;
        let ((body, content), nothing) = (parts(document), Vec::<u8>::new());
        let (bytes, expires) = (document.bytes as i64, micros(document.expires.as_ref()));
        let args = args![
            &self.tenant,
            &self.bank_id,
            &document.id,
            &self.revision,
            bytes,
            &body,
            expires,
            &nothing,
            &content,
            file_of(document),
            &self.next
        ];
        let changed = conn.execute(LET_GO, args).await?;
        if changed > 0 {
            marks::bury(conn, &self.tenant, &self.bank_id, &[&document.id]).await?;
        }
        Ok(Outcome::Changed(changed))
    }
}

struct Redo {
    tenant: String,
    bank_id: String,
    id: String,
    worker: String,
}

#[async_trait]
impl Command for Redo {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(REDO, args![&self.tenant, &self.bank_id, &self.id, &self.worker]).await?;
        Ok(Outcome::Done)
    }
}

struct PutNext {
    tenant: String,
    bank_id: String,
    waiting: Document,
    revision: String,
}

#[async_trait]
impl Command for PutNext {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let waiting = self.waiting.encode_to_vec();
        let args = args![&self.tenant, &self.bank_id, &self.waiting.id, &self.revision, &waiting];
        Ok(Outcome::Changed(conn.execute(PUT_NEXT, args).await?))
    }
}

struct Renew {
    tenant: String,
    bank_id: String,
    id: String,
    revision: String,
    next: String,
    sql: &'static str,
}

#[async_trait]
impl Command for Renew {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let args = args![&self.tenant, &self.bank_id, &self.id, &self.revision, &self.next];
        Ok(Outcome::Changed(conn.execute(self.sql, args).await?))
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
    /// Stores documents, each in place of what its id was before, and the ingestion that brings them: all or none. One that is in
    /// progress waits beside a document that has chunks until it is [completed](Store::complete_document).
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

    /// Stores how a document's insertion ended, or what has changed of it since; `chunks` were read and so many of them embedded. Its
    /// chunks are those that were. What waits for its place takes it where this one is completed, and is given up where it failed. False
    /// where the document is another's by now, or gone.
    pub async fn settle_document(
        &self,
        tenant: &str,
        bank_id: &str,
        document: &Document,
        revision: &str,
        progress: (u64, u64),
    ) -> Result<bool> {
        self.settle(tenant, bank_id, document, revision, "", progress).await
    }

    /// As [`Store::settle_document`], once the index has the chunks of this revision and no others. False as well where it was cancelled.
    pub async fn complete_document(
        &self,
        tenant: &str,
        bank_id: &str,
        document: &Document,
        revision: &str,
        progress: (u64, u64),
    ) -> Result<bool> {
        self.settle(tenant, bank_id, document, revision, revision, progress).await
    }

    /// As [`Store::settle_document`], of one that no chunk is of.
    pub async fn empty_document(&self, tenant: &str, bank_id: &str, document: &Document, revision: &str) -> Result<bool> {
        self.settle(tenant, bank_id, document, revision, NO_VERSION, (0, 0)).await
    }

    async fn settle(
        &self,
        tenant: &str,
        bank_id: &str,
        document: &Document,
        revision: &str,
        version: &str,
        progress: (u64, u64),
    ) -> Result<bool> {
        let (tenant, bank_id, revision, version) = (tenant.into(), bank_id.into(), revision.into(), version.into());
        let command = Settle { tenant, bank_id, document: document.clone(), revision, version, progress };
        Ok(self.write(command).await? != Outcome::Changed(0))
    }

    /// Puts what waits for a document's place into it, before it has chunks: what was there goes as by [`Store::delete_documents`].
    /// False where nothing waits any more.
    pub async fn let_go_document(&self, tenant: &str, bank_id: &str, waiting: &Document, revision: &str) -> Result<bool> {
        let which = [waiting.id.clone()];
        self.forget_quotes(tenant, bank_id, &which).await?;
        let (next, revision) = (ids::new("rev"), revision.into());
        let command = LetGo { tenant: tenant.into(), bank_id: bank_id.into(), waiting: waiting.clone(), revision, next };
        let outcome = self.write(command).await?;
        self.forget_quotes(tenant, bank_id, &which).await?;
        self.fold_log().await;
        Ok(outcome != Outcome::Changed(0))
    }

    /// Has a completed document inserted again from its content, by this worker, since its chunks may be another's.
    pub async fn redo_document(&self, tenant: &str, bank_id: &str, id: &str, worker: &str) -> Result<()> {
        self.write(Redo { tenant: tenant.into(), bank_id: bank_id.into(), id: id.into(), worker: worker.into() }).await.map(drop)
    }

    /// Changes what waits for a document's place. False where that is another's by now, or has taken it.
    pub async fn put_waiting_document(&self, tenant: &str, bank_id: &str, waiting: &Document, revision: &str) -> Result<bool> {
        let command = PutNext { tenant: tenant.into(), bank_id: bank_id.into(), waiting: waiting.clone(), revision: revision.into() };
        Ok(self.write(command).await? != Outcome::Changed(0))
    }

    /// Of those of these documents that are there: the version whose chunks are its own, and that which is being stored in its place,
    /// or the same again.
    pub async fn document_versions(&self, tenant: &str, bank_id: &str, ids: &[&str]) -> Result<HashMap<String, [String; 2]>> {
        let list = serde_json::to_string(ids).map_err(|error| Error::internal("ids are no JSON").with_source(error))?;
        let rows = self.read(self.worded(VERSIONS), args![tenant, bank_id, &list]).await?;
        let read = |row: &Row| Ok((row.text(0)?, [row.text(1)?, row.text(2)?]));
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// A new name for a document, before its chunks are changed: who has its row from before, as a backup has, learns that
    /// they are not those of that row. One that is being inserted keeps its name, by which its insertion goes. `None` where the
    /// document is another's by now, or gone.
    pub async fn renew_document(&self, tenant: &str, bank_id: &str, id: &str, revision: &str) -> Result<Option<String>> {
        if let Some(next) = self.new_name(RENEW, tenant, bank_id, id, revision).await? {
            return Ok(Some(next));
        }
        Ok(self.document_revision(tenant, bank_id, id).await?.filter(|there| there == revision))
    }

    /// A new name for an insertion that goes on: whoever is at it under the old one has to begin it anew. `None` where there is none of
    /// this name.
    pub async fn rename_insertion(&self, tenant: &str, bank_id: &str, id: &str, revision: &str) -> Result<Option<String>> {
        self.new_name(RENAME_INSERTION, tenant, bank_id, id, revision).await
    }

    async fn new_name(&self, sql: &'static str, tenant: &str, bank_id: &str, id: &str, revision: &str) -> Result<Option<String>> {
        let next = ids::new("rev");
        let (tenant, bank_id, id, revision) = (tenant.into(), bank_id.into(), id.into(), revision.into());
        let changed = self.write(Renew { tenant, bank_id, id, revision, next: next.clone(), sql }).await?;
        Ok((changed != Outcome::Changed(0)).then_some(next))
    }

    /// Stores a document's content, and what is said of it, under a new name: of two who have read the same, one writes. False where
    /// the document is another's by now, or gone.
    pub async fn put_document_content(&self, tenant: &str, bank_id: &str, document: InsertedDocument) -> Result<bool> {
        let command = PutContent { tenant: tenant.into(), bank_id: bank_id.into(), document, next: ids::new("rev") };
        Ok(self.write(command).await? != Outcome::Changed(0))
    }

    /// With its content, and what waits for its place.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn get_document(&self, tenant: &str, bank_id: &str, id: &str) -> Result<KeptDocument> {
        let rows = self.read(GET, args![tenant, bank_id, id]).await?;
        let row = rows.first().ok_or_else(|| not_found("document", id))?;
        let mut document = read(row)?;
        let report = |error: sqlx::Error| failure::report(&error);
        document.content = failure::decode_column::<Document>(row, 3)?.content;
        let waits = !row.bytes(6).map_err(report)?.is_empty();
        let waiting = if waits { Some(failure::decode_column(row, 6)?) } else { None };
        Ok(KeptDocument { document, revision: row.text(4).map_err(report)?, version: row.text(5).map_err(report)?, waiting })
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
        let placed = |row: &Row| Ok((row.text(3).map_err(|error| failure::report(&error))?, read(row)?));
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

    /// Bank and id of the documents that were made of a file, here and elsewhere.
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

    /// Those of them that something is being inserted in the place of.
    pub async fn documents_expired_in_wait(&self, tenant: &str, bank_id: &str, now: &Timestamp) -> Result<Vec<String>> {
        let rows = self.read(EXPIRED_IN_WAIT, args![tenant, bank_id, micros(Some(now))]).await?;
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

/// What was inserted last may be another than the body is of, which has not heard of a cancel either.
fn read(row: &Row) -> Result<Document> {
    let mut document: Document = failure::decode(row)?;
    document.status = status(row.int(1).map_err(|error| failure::report(&error))?).into();
    document.ingestion_id = row.text(2).map_err(|error| failure::report(&error))?;
    if document.status() != DocumentStatus::Failed {
        document.error = None;
    }
    Ok(document)
}

fn status(stored: i64) -> DocumentStatus {
    i32::try_from(stored).ok().and_then(|status| DocumentStatus::try_from(status).ok()).unwrap_or(DocumentStatus::Unspecified)
}
