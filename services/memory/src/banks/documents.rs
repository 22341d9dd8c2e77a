//! Documents that are there: looked at, listed, renamed, deleted; and their chunks.

use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{
    Chunk, DeleteDocumentsRequest, DeleteDocumentsResponse, Document, DocumentStatus, GetDocumentRequest, ListChunksRequest,
    ListChunksResponse, ListDocumentsRequest, ListDocumentsResponse, UpdateDocumentRequest, document::Content,
};
use llama_stack_store::{DocumentList, KeptDocument};

use super::{
    Banks,
    access::{Want, key, past},
    content::part,
    valid,
};
use crate::index::BankKey;

/// Of one call.
const MAX_DELETED: usize = 10_000;
/// Chunks, or documents, that are looked through at a time.
pub(super) const PAGE: u32 = 1_000;

impl Banks {
    pub(super) async fn document(&self, cx: &Context, request: GetDocumentRequest) -> Result<Document> {
        let bank = self.open(cx, &request.bank_id, Want::Read).await?;
        let mut document = self.found(cx.tenant(), &bank.id, &request.document_id).await?;
        document.content = document.content.map(|content| part(content, request.content_offset, request.content_bytes)).transpose()?;
        Ok(document)
    }

    async fn found(&self, tenant: &str, bank_id: &str, id: &str) -> Result<Document> {
        let there = if valid::id("document_id", id).is_ok() { self.there(tenant, bank_id, id).await? } else { None };
        there.map(|there| there.document).ok_or_else(|| no_such_document(id))
    }

    pub(super) async fn documents(&self, cx: &Context, request: ListDocumentsRequest) -> Result<ListDocumentsResponse> {
        let bank = self.open(cx, &request.bank_id, Want::Read).await?;
        if DocumentStatus::try_from(request.status).is_err() {
            return Err(Error::invalid("status", "status must be in_progress, completed, failed or cancelled"));
        }
        let list = DocumentList {
            status: request.status,
            ingestion_id: &request.ingestion_id,
            newest_first: request.newest_first,
            page_size: request.page_size,
            page_token: &request.page_token,
        };
        let (documents, next_page_token) = self.store.list_documents(cx.tenant(), &bank.id, list, &ids::now()).await?;
        Ok(ListDocumentsResponse { documents, next_page_token })
    }

    /// Chunks first: what cannot be found any more may still be listed for a moment, never the other way round.
    pub(super) async fn remove_documents(&self, cx: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        let bank = self.open(cx, &request.bank_id, Want::Change).await?;
        if !(1..=MAX_DELETED).contains(&request.document_ids.len()) {
            let message = format!("document_ids must hold 1 to {MAX_DELETED}, not {}", request.document_ids.len());
            return Err(Error::invalid("document_ids", message));
        }
        self.note_use(cx.tenant(), &bank).await?;
        let known: Vec<String> = request.document_ids.into_iter().filter(|id| valid::id("document_ids", id).is_ok()).collect();
        if request.file_id.is_empty() {
            return Ok(DeleteDocumentsResponse { deleted: self.erase(cx.tenant(), &bank.id, known).await? });
        }
        let mut deleted = 0;
        for id in known {
            deleted += self.erase_held(cx.tenant(), &bank.id, &id, Some(&request.file_id)).await?;
        }
        Ok(DeleteDocumentsResponse { deleted })
    }

    /// # Errors
    /// `ResourceExhausted` the tenant's documents would have more than they may: with all three numbers. `instead_of` is the
    /// document in whose place the new one comes.
    pub(super) async fn check_quota(&self, tenant: &str, bank_id: &str, instead_of: &str, bytes: u64) -> Result<()> {
        let Some(most) = self.config.max_tenant_bytes else { return Ok(()) };
        let has = self.store.document_bytes(tenant, &self.provider_id, bank_id, instead_of).await?;
        if has.saturating_add(bytes) <= most {
            return Ok(());
        }
        let message =
            format!("this needs {bytes} bytes, and the documents that are there have {has} of the {most} that they may: delete some");
        Err(Error::new(Code::ResourceExhausted, message).with_reason("storage_quota"))
    }

    pub(super) async fn erase(&self, tenant: &str, bank_id: &str, ids: Vec<String>) -> Result<u32> {
        let key = key(tenant, bank_id);
        if let [only] = ids.as_slice() {
            let _held = self.0.locks.document(&key, only).await;
            return self.remove(tenant, bank_id, &ids).await;
        }
        // Many at a time cost one sync each way, and nothing else may be inserted into the bank meanwhile.
        let _alone = self.0.locks.bank(&key).await;
        self.remove(tenant, bank_id, &ids).await
    }

    /// A document as it is, and not what is being inserted in its place; only if it is of this file, where one is named.
    pub(super) async fn erase_held(&self, tenant: &str, bank_id: &str, id: &str, of_file: Option<&str>) -> Result<u32> {
        let _held = self.0.locks.document(&key(tenant, bank_id), id).await;
        let there = match self.store.get_document(tenant, bank_id, id).await {
            Err(error) if error.code() == Code::NotFound => return Ok(0),
            there => there?,
        };
        let is_of = |file: &str| matches!(&there.document.content, Some(Content::FileId(id)) if id == file);
        if of_file.is_some_and(|file| !is_of(file)) {
            return Ok(0);
        }
        let ids = [id.to_owned()];
        let in_progress = there.document.status() == DocumentStatus::InProgress;
        let Some(waiting) = there.waiting.filter(|waiting| in_progress && !past(waiting.expires.as_ref())) else {
            return self.remove(tenant, bank_id, &ids).await;
        };
        let _busy = self.0.worker.begin(&self.store).await?;
        self.forget_chunks(tenant, bank_id, &ids).await?;
        if self.store.let_go_document(tenant, bank_id, &waiting, &there.revision).await? {
            return Ok(1);
        }
        // Another process put it into its place meanwhile: its chunks may be among those that have gone.
        self.store.redo_document(tenant, bank_id, id, self.0.worker.owner()).await?;
        Ok(0)
    }

    /// Documents that the caller holds: their chunks, what was told of them, and then their rows; so whoever deletes again what
    /// was cut off on the way finds all that is left.
    pub(super) async fn remove(&self, tenant: &str, bank_id: &str, ids: &[String]) -> Result<u32> {
        self.forget_chunks(tenant, bank_id, ids).await?;
        let mut deleted = 0;
        for ids in ids.chunks(PAGE as usize) {
            deleted += self.store.delete_documents(tenant, bank_id, ids).await? as u32;
        }
        Ok(deleted)
    }

    async fn forget_chunks(&self, tenant: &str, bank_id: &str, ids: &[String]) -> Result<()> {
        let (key, mut quoted) = (key(tenant, bank_id), false);
        for ids in ids.chunks(PAGE as usize) {
            self.index.delete_documents(&key, ids).await?;
            quoted |= self.store.forget_quotes(tenant, bank_id, ids).await?;
        }
        if quoted {
            // Once, as it is all that they keep of the tenant.
            self.keepers.forget(tenant).await?;
        }
        Ok(())
    }

    pub(super) async fn change_document(&self, cx: &Context, request: UpdateDocumentRequest) -> Result<Document> {
        let bank = self.open(cx, &request.bank_id, Want::Change).await?;
        valid::attributes("attributes", &request.attributes)?;
        if valid::id("document_id", &request.document_id).is_err() {
            return Err(no_such_document(&request.document_id));
        }
        let key = key(cx.tenant(), &bank.id);
        let held = self.0.locks.document(&key, &request.document_id).await;
        let there = self.there(cx.tenant(), &bank.id, &request.document_id).await?;
        let mut there = there.ok_or_else(|| no_such_document(&request.document_id))?;
        if let Some(title) = &request.title {
            valid::name(title).map_err(|error| error.with_field("title"))?;
        }
        if there.document.status() == DocumentStatus::InProgress {
            // Whoever has read what is to be inserted reads it again.
            let next = self.store.rename_insertion(cx.tenant(), &bank.id, &there.document.id, &there.revision).await?;
            there.revision = next.ok_or_else(replaced)?;
        }
        // What is to take its place is called so as well.
        for document in [Some(&mut there.document), there.waiting.as_mut()].into_iter().flatten() {
            document.attributes.clone_from(&request.attributes);
            if let Some(title) = &request.title {
                document.title.clone_from(title);
            }
        }
        if let Some(waiting) = &there.waiting
            && !self.store.put_waiting_document(cx.tenant(), &bank.id, waiting, &there.revision).await?
        {
            return Err(replaced());
        }
        let revision = self.rename(cx.tenant(), &bank.id, &there.document, &there).await?.ok_or_else(replaced)?;
        if !self.store.settle_document(cx.tenant(), &bank.id, &there.document, &revision, (0, 0)).await? {
            return Err(replaced());
        }
        drop(held);
        self.found(cx.tenant(), &bank.id, &request.document_id).await
    }

    /// Puts a document's title and attributes into the chunks that are its own, all at once, and says which revision it has now: another
    /// before they are changed. `None` where it was replaced meanwhile.
    pub(super) async fn rename(&self, tenant: &str, bank_id: &str, document: &Document, there: &KeptDocument) -> Result<Option<String>> {
        let (key, mut after, mut changed) = (key(tenant, bank_id), None::<String>, Vec::new());
        let differs = |chunk: &Chunk| chunk.title != document.title || chunk.attributes != document.attributes;
        loop {
            let chunks = self.index.scroll(&key, Some(&document.id), after.as_deref(), PAGE, true).await?;
            let whole_page = chunks.len() == PAGE as usize;
            after = chunks.last().map(|last| last.id.clone());
            changed.extend(chunks.into_iter().filter(|chunk| chunk.revision == there.version && differs(chunk)));
            if !whole_page {
                break;
            }
        }
        if changed.is_empty() {
            return Ok(Some(there.revision.clone()));
        }
        for chunk in &mut changed {
            chunk.title.clone_from(&document.title);
            chunk.attributes.clone_from(&document.attributes);
        }
        let revision = self.store.renew_document(tenant, bank_id, &document.id, &there.revision).await?;
        if revision.is_some() {
            self.index.upsert(&key, changed).await?;
        }
        Ok(revision)
    }

    pub(super) async fn scroll(&self, cx: &Context, request: ListChunksRequest) -> Result<ListChunksResponse> {
        let bank = self.open(cx, &request.bank_id, Want::Read).await?;
        self.forget_expired(cx.tenant(), &bank.id).await?;
        let size = if request.page_size == 0 { 100 } else { request.page_size.min(1_000) };
        let document = Some(request.document_id.as_str()).filter(|id| !id.is_empty());
        let after = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
        let key = key(cx.tenant(), &bank.id);
        let mut chunks = self.index.scroll(&key, document, after, size + 1, request.with_vectors).await?;
        let more = chunks.len() > size as usize;
        chunks.truncate(size as usize);
        let next_page_token = chunks.last().filter(|_| more).map(|chunk| chunk.id.clone()).unwrap_or_default();
        let mut chunks = self.shown(&key, chunks, |chunk| chunk).await?;
        chunks.iter_mut().for_each(|chunk| chunk.revision.clear());
        Ok(ListChunksResponse { chunks, next_page_token })
    }

    /// What has expired is not there: not even until the next sweep.
    pub(super) async fn forget_expired(&self, tenant: &str, bank_id: &str) -> Result<()> {
        let now = ids::now();
        let mut expired = self.store.expired_documents(tenant, bank_id, &now).await?;
        if expired.is_empty() {
            return Ok(());
        }
        for id in self.store.documents_expired_in_wait(tenant, bank_id, &now).await? {
            expired.retain(|other| *other != id);
            self.erase_held(tenant, bank_id, &id, None).await?;
        }
        if expired.is_empty() { Ok(()) } else { self.erase(tenant, bank_id, expired).await.map(drop) }
    }

    /// Those that are of the version that their document's row vouches for, or that is being stored in its place. An index may have
    /// others: of an insertion that was cut off, or that another process overtook.
    pub(super) async fn shown<T>(&self, key: &BankKey, mut found: Vec<T>, chunk: impl Fn(&T) -> &Chunk) -> Result<Vec<T>> {
        if found.is_empty() {
            return Ok(found);
        }
        let mut ids: Vec<&str> = found.iter().map(|found| chunk(found).document_id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let versions = self.store.document_versions(&key.tenant, &key.bank_id, &ids).await?;
        found.retain(|found| versions.get(&chunk(found).document_id).is_some_and(|there| there.contains(&chunk(found).revision)));
        Ok(found)
    }
}

pub(super) fn replaced() -> Error {
    Error::new(Code::Aborted, "the document was replaced meanwhile: read it again").with_reason("document_replaced")
}

pub(super) fn no_such_document(id: &str) -> Error {
    let shown: String = id.chars().take(100).collect();
    Error::not_found(format!("no document {shown:?}")).with_reason("document_not_found")
}
