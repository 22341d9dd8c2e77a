//! What goes on when nobody waits: ingestions, what a crash cut off, what expires.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use llama_stack_core::{Code, Context, Error, EventStream, Principal, Result, ids};
use llama_stack_proto::v1::{Bank, Document, DocumentStatus, GetIngestionRequest, Ingestion, InsertDocumentsResponse, ItemFailure};
use llama_stack_store::{Author, DocumentList, Holder, InsertedDocument, NO_VERSION, PendingDocument};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    Banks,
    access::{Want, author, key},
    documents::PAGE,
    ingest::{Read, gone},
    worker::Busy,
};
use crate::index::BankKey;

/// No worker's name.
const NOBODY: &str = "-";
/// Documents that are read and embedded at a time, of all ingestions: each fills the cores by itself.
const AT_A_TIME: usize = 2;
const SWEEP: Duration = Duration::from_secs(30);
/// How long a watcher sleeps where another process may do the work.
const LOOK: Duration = Duration::from_millis(500);
/// How often a document is tried whose models or store do not answer, and how long it waits before the second time.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, while the database does not answer.
const LONG_PAUSE: Duration = Duration::from_secs(15);

pub(super) struct Running {
    /// Ended by a cancel.
    ingestions: Mutex<HashMap<String, CancellationToken>>,
    slots: Arc<Semaphore>,
    moved: Notify,
}

impl Default for Running {
    fn default() -> Self {
        Self { ingestions: Mutex::default(), slots: Arc::new(Semaphore::new(AT_A_TIME)), moved: Notify::new() }
    }
}

impl Running {
    fn begin(&self, id: &str, shutdown: &CancellationToken) -> CancellationToken {
        let token = shutdown.child_token();
        self.ingestions.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into(), token.clone());
        token
    }

    fn end(&self, id: &str) -> Option<CancellationToken> {
        self.ingestions.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}

impl Banks {
    /// Keeps what is to be inserted, durably, and answers; the rest happens afterwards.
    pub(super) async fn begin(
        &self,
        cx: &Context,
        bank: &Bank,
        documents: Vec<(u32, Document)>,
        failures: Vec<ItemFailure>,
    ) -> Result<InsertDocumentsResponse> {
        let (id, tenant, author) = (ids::new("ing"), cx.tenant(), author(cx));
        let count = documents.len() as u32;
        let mut rows = Vec::with_capacity(documents.len());
        for (_, document) in documents {
            let mut waits = Document { ingestion_id: id.clone(), status: DocumentStatus::InProgress.into(), ..document };
            (waits.sha256, waits.bytes, waits.error) = (String::new(), size(&waits), None);
            if let Some(there) = self.there(tenant, &bank.id, &waits.id).await? {
                waits.created = there.document.created;
            }
            rows.push(InsertedDocument { document: waits, revision: ids::new("rev") });
        }
        // What files have is known when they are read.
        self.check_quota(tenant, &bank.id, "", rows.iter().map(|row| row.document.bytes).sum()).await?;
        let document_ids: Vec<String> = rows.iter().map(|row| row.document.id.clone()).collect();
        let ingestion = Ingestion {
            id: id.clone(),
            bank_id: bank.id.clone(),
            status: DocumentStatus::InProgress.into(),
            created: Some(ids::now()),
            documents: count,
            ..Ingestion::default()
        };
        let busy = self.0.worker.begin(&self.store).await?;
        // Not while one of them is being stored.
        let alone = self.0.locks.bank(&key(tenant, &bank.id)).await;
        let put = self.store.put_documents(tenant, &bank.id, &author, self.0.worker.owner(), rows, Some(ingestion.clone())).await;
        put.map_err(|error| gone(error, &bank.id))?;
        drop(alone);
        let pending = document_ids.iter().map(|document| PendingDocument {
            tenant: tenant.into(),
            bank_id: bank.id.clone(),
            id: document.clone(),
            ingestion_id: id.clone(),
            author: author.clone(),
        });
        self.work_on(pending.collect(), cx.detached(), tenant.into(), bank.id.clone(), id, busy);
        Ok(InsertDocumentsResponse { document_ids, failures, ingestion: Some(ingestion) })
    }

    /// Goes on with the insertions that the end of a process cut off, this one's before or another's; or the end of a task.
    pub(super) async fn resume(&self) -> Result<()> {
        let worker = &self.0.worker;
        // Its own count as left once its lease has run out, and none is kept that does nothing.
        let idle = worker.is_idle();
        let looks = Holder { owner: if idle { NOBODY } else { worker.owner() }, ..worker.holder() };
        if !self.store.are_documents_left(looks, &self.provider_id).await? {
            return Ok(());
        }
        let _busy = worker.begin(&self.store).await?;
        let own = idle && worker.is_alone();
        let pending = self.store.take_documents(worker.holder(), &self.provider_id, own).await?;
        let mut groups: HashMap<(String, String, String, String), Vec<PendingDocument>> = HashMap::new();
        for document in pending {
            let PendingDocument { tenant, bank_id, ingestion_id, author, .. } = &document;
            let group = (tenant.clone(), bank_id.clone(), ingestion_id.clone(), author.principal.clone());
            groups.entry(group).or_default().push(document);
        }
        for ((tenant, bank, ingestion, _), documents) in groups {
            tracing::info!(bank, ingestion, documents = documents.len(), "an insertion that was cut off goes on");
            let Author { principal, roles } = documents.first().map(|document| document.author.clone()).unwrap_or_default();
            let cx = Context::new(Principal { id: principal, tenant: tenant.clone(), roles });
            self.work_on(documents, cx, tenant, bank, ingestion, worker.begin(&self.store).await?);
        }
        Ok(())
    }

    /// Those whose documents had all ended, and that had not been told.
    pub(super) async fn end_ingestions(&self) -> Result<()> {
        for (tenant, bank, id) in self.store.unfinished_ingestions(&self.provider_id).await? {
            self.store.end_ingestion(&tenant, &bank, &id, false, &ids::now()).await?;
        }
        Ok(())
    }

    fn work_on(&self, documents: Vec<PendingDocument>, cx: Context, tenant: String, bank_id: String, ingestion: String, busy: Busy) {
        let (banks, token) = (self.clone(), self.0.running.begin(&ingestion, &self.shutdown));
        self.tasks.spawn(async move {
            let each = |document: PendingDocument| {
                let (banks, cx, token) = (&banks, &cx, &token);
                async move {
                    let Ok(_slot) = banks.0.running.slots.acquire().await else { return };
                    // A document under way is dropped whole: before it is stored nothing of it is, and storing is a task of its own.
                    tokio::select! { biased; () = token.cancelled() => {}, () = banks.work(cx, &document) => {} }
                    banks.0.running.moved.notify_waiters();
                }
            };
            stream::iter(documents).for_each_concurrent(AT_A_TIME, each).await;
            banks.0.running.end(&ingestion);
            if !ingestion.is_empty()
                && !banks.shutdown.is_cancelled()
                && let Err(error) = banks.store.end_ingestion(&tenant, &bank_id, &ingestion, false, &ids::now()).await
            {
                tracing::warn!(ingestion, error = error.message(), "an ingestion's end could not be stored");
            }
            banks.0.running.moved.notify_waiters();
            drop(busy);
        });
    }

    /// One document, to its end: what fails for a while is tried again, and what fails for good is told in its row.
    async fn work(&self, cx: &Context, pending: &PendingDocument) {
        let (mut pause, mut attempt) = (PAUSE, 0);
        loop {
            let (failed, is_counted) = match self.work_once(cx, pending).await {
                Ok(None) => return,
                Ok(Some(error)) => (error, true),
                // Without a database nothing could be told of it either.
                Err(error) if is_of_store(&error) => (error, false),
                Err(error) => (error, true),
            };
            tracing::warn!(document = pending.id, bank = pending.bank_id, attempt, error = ?failed, "a document is not inserted");
            if is_counted {
                attempt += 1;
                if !passes(&failed) || attempt == TRIES {
                    return self.note_failure(pending, &failed).await;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONG_PAUSE);
        }
    }

    /// Why it could not be read, if it could not.
    ///
    /// # Errors
    /// Those of storing it.
    async fn work_once(&self, cx: &Context, pending: &PendingDocument) -> Result<Option<Error>> {
        let PendingDocument { tenant, bank_id, id, author, .. } = pending;
        let bank = match self.store.get_bank(tenant, &self.provider_id, bank_id).await {
            Err(error) if error.code() == Code::NotFound => return Ok(None),
            bank => bank?,
        };
        let mut row = self.there(tenant, bank_id, id).await?;
        if row.is_none() {
            // What it is to replace may have expired, and gives way.
            self.forget_expired(tenant, bank_id).await?;
            row = self.there(tenant, bank_id, id).await?;
        }
        let Some(row) = row else { return Ok(None) };
        // Another process has taken it over: this one was too slow.
        if !self.store.is_worker_of(self.0.worker.owner(), pending).await? {
            return Ok(None);
        }
        // Cancelled, or replaced by an insertion that came later.
        if row.document.status() != DocumentStatus::InProgress || row.document.ingestion_id != pending.ingestion_id {
            return Ok(None);
        }
        let read = match self.read(cx, &bank, row.waiting.unwrap_or(row.document)).await {
            Ok(Read::New(mut document, chunks)) => {
                document.ingestion_id.clone_from(&pending.ingestion_id);
                Read::New(document, chunks)
            }
            Ok(same) => same,
            Err(error) => return Ok(Some(error)),
        };
        self.commit_detached(tenant, &bank, author.clone(), read, Some(row.revision)).await.map(|()| None)
    }

    async fn note_failure(&self, pending: &PendingDocument, error: &Error) {
        let mut pause = PAUSE;
        while let Err(untold) = self.store_failure(pending, error).await {
            tracing::error!(document = pending.id, error = ?untold, "a document's failure could not be stored");
            if !is_of_store(&untold) && untold.reason() != Some("disk_full") {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONG_PAUSE);
        }
    }

    /// What was there before goes on answering; if some of its chunks are not there any more, none stays.
    async fn store_failure(&self, pending: &PendingDocument, error: &Error) -> Result<()> {
        let PendingDocument { tenant, bank_id, id, .. } = pending;
        let key = key(tenant, bank_id);
        let _held = self.0.locks.document(&key, id).await;
        let Some(row) = self.there(tenant, bank_id, id).await? else { return Ok(()) };
        // What came later is not its failure.
        if row.document.status() != DocumentStatus::InProgress
            || row.document.ingestion_id != pending.ingestion_id
            || !self.store.is_worker_of(self.0.worker.owner(), pending).await?
        {
            return Ok(());
        }
        let mut document = row.document;
        (document.status, document.error) = (DocumentStatus::Failed.into(), Some(error.to_info()));
        match self.empty_unless_whole(&key, &document, &row.version, &row.revision).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // An index that does not answer is no reason to tell nobody: what is of another version is not found in any case. The old
            // content again is read again, as its chunks may not be there.
            Err(untold) => {
                tracing::warn!(document = id, error = ?untold, "what a failed insertion left in the index stays there, and is not found");
                document.sha256.clear();
            }
        }
        self.store.settle_document(tenant, bank_id, &document, &row.revision, (0, 0)).await.map(drop)
    }

    /// Whether nothing of the document is in the index any more, as it had not all of this version and nothing else. Its row, of this
    /// revision, says so then, with what else is to be said of it.
    pub(super) async fn empty_unless_whole(&self, key: &BankKey, document: &Document, version: &str, revision: &str) -> Result<bool> {
        let (id, mut after, mut count) = (document.id.as_str(), None::<String>, 0);
        let mut whole = version != NO_VERSION;
        while whole {
            let chunks = self.index.scroll(key, Some(id), after.as_deref(), PAGE, false).await?;
            whole = chunks.iter().all(|chunk| chunk.revision == version);
            count += chunks.len();
            match chunks.last() {
                Some(last) if chunks.len() == PAGE as usize => after = Some(last.id.clone()),
                _ => break,
            }
        }
        if whole && (count > 0 || document.chunk_count == 0) {
            return Ok(false);
        }
        self.index.delete_documents(key, &[id.to_owned()]).await?;
        let empty = Document { sha256: String::new(), chunk_count: 0, ..document.clone() };
        self.store.empty_document(&key.tenant, &key.bank_id, &empty, revision).await.map(|_| true)
    }

    pub(super) async fn ingestion(&self, cx: &Context, bank: &str, id: &str) -> Result<Ingestion> {
        let bank = self.open(cx, bank, Want::Read).await?;
        let missing = || Error::not_found("no such ingestion in this bank").with_reason("ingestion_not_found");
        if super::valid::id("id", id).is_err() {
            return Err(missing());
        }
        self.store.get_ingestion(cx.tenant(), &bank.id, id).await
    }

    /// What has not ended is not inserted.
    pub(super) async fn cancel(&self, cx: &Context, bank: &str, id: &str) -> Result<Ingestion> {
        let bank = self.open(cx, bank, Want::Change).await?;
        let there = self.ingestion(cx, &bank.id, id).await?;
        if there.ended.is_some() {
            return Ok(there);
        }
        if let Some(token) = self.0.running.end(id) {
            token.cancel();
        }
        let key = key(cx.tenant(), &bank.id);
        // Not in the middle of storing one of them.
        let alone = self.0.locks.bank(&key).await;
        if let Err(error) = self.empty_halves(&key, id).await {
            tracing::warn!(ingestion = id, error = ?error, "what a crash left in the middle of being stored stays, and is not found");
        }
        self.store.end_ingestion(cx.tenant(), &bank.id, id, true, &ids::now()).await?;
        drop(alone);
        self.0.running.moved.notify_waiters();
        self.ingestion(cx, &bank.id, id).await
    }

    /// Of an ingestion's documents that a crash left in the middle of being stored the old version is not there in whole any more, and
    /// the new one will not be: so they have none.
    async fn empty_halves(&self, key: &BankKey, ingestion: &str) -> Result<()> {
        let mut token = String::new();
        loop {
            let list = DocumentList {
                status: DocumentStatus::InProgress.into(),
                ingestion_id: ingestion,
                page_size: PAGE,
                page_token: &token,
                ..DocumentList::default()
            };
            let (documents, next) = self.store.list_documents(&key.tenant, &key.bank_id, list, &ids::now()).await?;
            let listed: Vec<&str> = documents.iter().map(|document| document.id.as_str()).collect();
            let versions = self.store.document_versions(&key.tenant, &key.bank_id, &listed).await?;
            for document in documents {
                if let Some([version, revision]) = versions.get(&document.id)
                    && version != NO_VERSION
                {
                    let cancelled = Document { status: DocumentStatus::Cancelled.into(), ..document };
                    self.empty_unless_whole(key, &cancelled, version, revision).await?;
                }
            }
            if next.is_empty() {
                return Ok(());
            }
            token = next;
        }
    }

    pub(super) async fn watch(&self, cx: &Context, request: GetIngestionRequest) -> Result<EventStream<Ingestion>> {
        // What is wrong with the request is told before the stream begins.
        let first = self.ingestion(cx, &request.bank_id, &request.id).await?;
        let (banks, cx) = (self.clone(), cx.clone());
        let state = Some((first, true));
        let next = move |state: Option<(Ingestion, bool)>| {
            let (banks, cx, request) = (banks.clone(), cx.clone(), request.clone());
            async move {
                let (seen, fresh) = state?;
                let ended = seen.ended.is_some();
                if fresh {
                    return Some((Ok(seen.clone()), Some((seen, false))));
                }
                if ended {
                    return None;
                }
                loop {
                    let moved = banks.0.running.moved.notified();
                    match cx.within(banks.ingestion(&cx, &request.bank_id, &request.id)).await {
                        Ok(now) if now != seen => return Some((Ok(now.clone()), Some((now, false)))),
                        Ok(_) => {}
                        Err(error) => return Some((Err(error), None)),
                    }
                    tokio::select! { () = moved => {}, () = tokio::time::sleep(LOOK) => {}, () = banks.shutdown.cancelled() => return None }
                }
            }
        };
        Ok(Box::pin(stream::unfold(state, next)))
    }

    /// Deletes what has expired, and ends deletions that were cut off, until the stack shuts down.
    pub(super) fn sweep(&self) {
        let banks = self.clone();
        self.tasks.spawn(async move {
            loop {
                if let Err(error) = banks.sweep_once().await {
                    tracing::warn!(provider = banks.provider_id, error = ?error, "what expired is not deleted");
                }
                tokio::select! { () = banks.shutdown.cancelled() => return, () = tokio::time::sleep(SWEEP) => {} }
            }
        });
    }

    pub(super) async fn sweep_once(&self) -> Result<()> {
        let now = ids::now();
        for (tenant, bank, id) in self.store.all_expired_documents(&self.provider_id, &now).await? {
            self.erase_held(&tenant, &bank, &id, None).await?;
        }
        for bank in self.store.doomed_banks(&self.provider_id, &now).await? {
            self.end(&bank.tenant, &bank.id).await?;
        }
        // Of a process that was killed just before it could say so.
        self.end_ingestions().await
    }
}

/// Whether it may go better the next time.
fn passes(error: &Error) -> bool {
    use llama_stack_core::Code::{Aborted, DeadlineExceeded, ResourceExhausted, Unavailable};
    matches!(error.code(), Aborted | DeadlineExceeded | ResourceExhausted | Unavailable)
        && !matches!(error.reason(), Some("parser_limits" | "storage_quota"))
}

/// The database does not answer for now.
fn is_of_store(error: &Error) -> bool {
    matches!(error.reason(), Some("store_unavailable" | "store_busy"))
}

/// Before it is read; of a file it is not known yet.
pub(super) fn size(document: &Document) -> u64 {
    use llama_stack_proto::v1::document::Content;
    match &document.content {
        Some(Content::Text(text)) => text.len() as u64,
        Some(Content::Data(data)) => data.len() as u64,
        Some(Content::FileId(_)) | None => 0,
    }
}
