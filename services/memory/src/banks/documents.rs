//! Documents that are there: looked at, listed, renamed, deleted; and their chunks.

use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{
    DeleteDocumentsRequest, DeleteDocumentsResponse, Document, DocumentStatus, GetDocumentRequest, ListChunksRequest, ListChunksResponse,
    ListDocumentsRequest, ListDocumentsResponse, UpdateDocumentRequest,
};
use llama_stack_store::DocumentList;

use super::{
    Banks,
    access::{Want, key},
    content::part,
    valid,
};

/// Of one call.
const MAX_DELETED: usize = 10_000;
/// Chunks that are rewritten at a time.
const PAGE: u32 = 1_000;

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
        let deleted = self.erase(cx.tenant(), &bank.id, known).await?;
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

    /// Documents that the caller holds: their chunks, what was told of them, and then their rows; so whoever deletes again what
    /// was cut off on the way finds all that is left.
    pub(super) async fn remove(&self, tenant: &str, bank_id: &str, ids: &[String]) -> Result<u32> {
        let (key, mut quoted, mut deleted) = (key(tenant, bank_id), false, 0);
        for ids in ids.chunks(PAGE as usize) {
            self.index.delete_documents(&key, ids).await?;
            quoted |= self.store.forget_quotes(tenant, bank_id, ids).await?;
        }
        if quoted {
            // Once, as it is all that they keep of the tenant.
            self.keepers.forget(tenant).await?;
        }
        for ids in ids.chunks(PAGE as usize) {
            deleted += self.store.delete_documents(tenant, bank_id, ids).await? as u32;
        }
        Ok(deleted)
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
        let document = &mut there.document;
        document.attributes = request.attributes;
        if let Some(title) = request.title {
            valid::name(&title).map_err(|error| error.with_field("title"))?;
            document.title = title;
        }
        let revision = self.rename(cx.tenant(), &bank.id, document, there.revision).await?.ok_or_else(replaced)?;
        if !self.store.settle_document(cx.tenant(), &bank.id, document, &revision, (0, 0)).await? {
            return Err(replaced());
        }
        drop(held);
        self.found(cx.tenant(), &bank.id, &request.document_id).await
    }

    /// Puts a document's title and attributes into its chunks, and says which revision it has now: another before the first of them
    /// is changed. `None` where it was replaced meanwhile.
    pub(super) async fn rename(&self, tenant: &str, bank_id: &str, document: &Document, mut revision: String) -> Result<Option<String>> {
        let key = key(tenant, bank_id);
        let (mut after, mut renewed) = (None::<String>, false);
        loop {
            let mut chunks = self.index.scroll(&key, Some(&document.id), after.as_deref(), PAGE, true).await?;
            let Some(last) = chunks.last() else { return Ok(Some(revision)) };
            let whole_page = chunks.len() == PAGE as usize;
            after = Some(last.id.clone());
            chunks.retain(|chunk| chunk.title != document.title || chunk.attributes != document.attributes);
            for chunk in &mut chunks {
                chunk.title.clone_from(&document.title);
                chunk.attributes.clone_from(&document.attributes);
            }
            if !chunks.is_empty() {
                if !renewed {
                    match self.store.renew_document(tenant, bank_id, &document.id, &revision).await? {
                        Some(next) => (revision, renewed) = (next, true),
                        None => return Ok(None),
                    }
                }
                self.index.upsert(&key, chunks).await?;
            }
            if !whole_page {
                return Ok(Some(revision));
            }
        }
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
        Ok(ListChunksResponse { chunks, next_page_token })
    }

    /// What has expired is not there: not even until the next sweep.
    pub(super) async fn forget_expired(&self, tenant: &str, bank_id: &str) -> Result<()> {
        let expired = self.store.expired_documents(tenant, bank_id, &ids::now()).await?;
        if expired.is_empty() { Ok(()) } else { self.erase(tenant, bank_id, expired).await.map(drop) }
    }
}

pub(super) fn replaced() -> Error {
    Error::new(Code::Aborted, "the document was replaced meanwhile: read it again").with_reason("document_replaced")
}

pub(super) fn no_such_document(id: &str) -> Error {
    let shown: String = id.chars().take(100).collect();
    Error::not_found(format!("no document {shown:?}")).with_reason("document_not_found")
}
