//! From a document to chunks that are found: read, cut, embedded, stored.

use llama_stack_core::{Code, Context, Error, Principal, Result, ids};
use llama_stack_documents::{CountTokens as _, Estimate, LINE_TOKENS, Passage, chunk, contextual, whole_text};
use llama_stack_proto::v1::{
    Bank, BankKind, Chunk, ChunkingStrategy, Document, DocumentStatus, EmbedPurpose, GetFileRequest, GetModelRequest,
    InsertDocumentsRequest, InsertDocumentsResponse, ItemFailure, chunking_strategy::Kind, document::Content,
};
use llama_stack_store::{Author, InsertedDocument, KeptDocument, NO_VERSION};
use prost_types::Timestamp;

use super::{
    Banks,
    access::{Want, author, key, past},
    documents::replaced,
    source::broke_off,
    tokens::Tokens,
    valid,
};

/// Of one call; more is for several calls, or for a background ingestion of each thousand.
const MAX_DOCUMENTS: usize = 1_000;

/// What comes of a document before anything of it is stored.
pub(super) enum Read {
    /// It is here already, cut and embedded; only what it is called may differ.
    Same(Box<(Document, KeptDocument)>),
    New(Box<Document>, Vec<Chunk>),
}

impl Banks {
    pub(super) async fn insert(&self, cx: &Context, request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        let bank = self.open(cx, &request.bank_id, Want::Change).await?;
        if !(1..=MAX_DOCUMENTS).contains(&request.documents.len()) {
            let message = format!("documents must hold 1 to {MAX_DOCUMENTS}, not {}", request.documents.len());
            return Err(Error::invalid("documents", message));
        }
        let asked = request.chunking.as_ref().or(bank.chunking.as_ref());
        let chunking = llama_stack_documents::validate(&asked.cloned().unwrap_or_default())?;
        if chunking.kind() == Kind::Contextual && self.config.contextual_model.is_empty() {
            let message = "contextual chunking needs a chat model: the manifest names none as contextual_model";
            return Err(Error::failed_precondition(message).with_field("chunking.kind"));
        }
        self.note_use(cx.tenant(), &bank).await?;
        // One whose time is over goes with all that quotes it, before another takes its id.
        self.forget_expired(cx.tenant(), &bank.id).await?;
        let (documents, failures) = checked(request.documents, &chunking);
        if request.background {
            return self.begin(cx, &bank, documents, failures).await;
        }
        self.insert_now(cx, &bank, documents, failures).await
    }

    /// One after the other: batches fill the cores. A document that fails leaves what was there before as it was.
    async fn insert_now(
        &self,
        cx: &Context,
        bank: &Bank,
        documents: Vec<(u32, Document)>,
        mut failures: Vec<ItemFailure>,
    ) -> Result<InsertDocumentsResponse> {
        let mut document_ids = Vec::with_capacity(documents.len());
        for (index, document) in documents {
            let id = document.id.clone();
            let inserted = match self.read(cx, bank, document).await {
                Ok(read) => self.commit_detached(cx.tenant(), bank, author(cx), read, None).await,
                Err(error) => Err(error),
            };
            match inserted {
                Ok(()) => document_ids.push(id),
                // The bank has gone, or the store has: the rest would fail alike.
                Err(error) if matches!(error.reason(), Some("bank_not_found" | "store_unavailable" | "disk_full")) => return Err(error),
                Err(error) => failures.push(ItemFailure { index, error: Some(error.to_info()) }),
            }
        }
        failures.sort_by_key(|failure| failure.index);
        Ok(InsertDocumentsResponse { document_ids, failures, ingestion: None })
    }

    /// Everything but storing it. `document.chunking` is the strategy.
    pub(super) async fn read(&self, cx: &Context, bank: &Bank, mut document: Document) -> Result<Read> {
        let source = self.source(cx, &document).await?;
        document.sha256.clone_from(&source.sha256);
        document.bytes = source.data.len() as u64;
        document.expires = sooner(document.expires, source.expires);
        document.status = DocumentStatus::Completed.into();
        document.error = None;
        let before = self.there(cx.tenant(), &bank.id, &document.id).await?;
        if let Some(before) = before {
            document.created = before.document.created;
            if before.version != NO_VERSION && before.document.sha256 == document.sha256 && alike(&before.document, &document) {
                document.chunk_count = before.document.chunk_count;
                if document.title.is_empty() {
                    document.title.clone_from(&before.document.title);
                }
                return Ok(Read::Same(Box::new((document, before))));
            }
        }
        if bank.kind() == BankKind::KeyValue {
            return Ok(Read::New(Box::new(document), Vec::new()));
        }
        let parsed = self.parse.parse(&source.filename, &source.media_type, source.data.clone()).await?;
        let named = if document.title.is_empty() { parsed.title.clone() } else { document.title.clone() };
        let shown = if named.is_empty() { source.filename.clone() } else { named.clone() };
        let strategy = document.chunking.unwrap_or_default();
        let window = self.window(cx, bank).await?;
        // All that `embedded_text` puts above a passage takes of its room.
        let heading = parsed.blocks.iter().map(|block| block.heading.as_str()).max_by_key(|heading| heading.len()).unwrap_or_default();
        let line = if strategy.kind() == Kind::Contextual { LINE_TOKENS as usize } else { 0 };
        let above = Estimate.count(&named) + Estimate.count(heading) + line;
        let (whole, parsed) = tokio::task::spawn_blocking(move || (whole_text(&parsed), parsed)).await.map_err(broke_off)?;
        let tokens = if bank.embedding_model.is_empty() {
            Tokens::estimated(window)
        } else {
            Tokens::of(self.models()?.as_ref(), cx, &bank.embedding_model, &whole, above, window).await
        };
        let cut = tokio::task::spawn_blocking(move || chunk(&parsed, &strategy, &tokens));
        let passages = cut.await.map_err(broke_off)??;
        if passages.is_empty() {
            return Err(Error::invalid("content", "the document has no text").with_reason("empty_file"));
        }
        let lines = if strategy.kind() == Kind::Contextual {
            contextual(cx, &passages, &whole, &**self.models()?, &self.config.contextual_model).await?
        } else {
            Vec::new()
        };
        let vectors = if bank.embedding_model.is_empty() {
            if bank.kind() == BankKind::Vector {
                let message = "the vectors of this bank are its callers': insert chunks with their vectors";
                return Err(Error::failed_precondition(message).with_reason("no_embedding_model"));
            }
            Vec::new()
        } else {
            let texts: Vec<String> = passages.iter().enumerate().map(|(n, passage)| embedded_text(&named, lines.get(n), passage)).collect();
            self.embed(cx, &bank.embedding_model, &texts, EmbedPurpose::Document).await?
        };
        let mut vectors = vectors.into_iter();
        let chunks = passages.into_iter().zip(0_u32..).map(|(passage, index)| Chunk {
            id: format!("{}#{index}", document.id),
            document_id: document.id.clone(),
            text: passage.text,
            vector: vectors.next().unwrap_or_default(),
            attributes: document.attributes.clone(),
            position: Some(passage.position),
            index,
            title: shown.clone(),
            file_id: source.file_id.clone(),
            revision: String::new(),
        });
        let chunks: Vec<Chunk> = chunks.collect();
        document.title = shown;
        document.chunk_count = chunks.len() as u32;
        Ok(Read::New(Box::new(document), chunks))
    }

    /// Stores what was read, in a task of its own: a caller that goes away leaves no half behind. `revision` is of a row
    /// that is there and waits for this; without one it is made first, so that a crash in between is made good.
    pub(super) async fn commit_detached(
        &self,
        tenant: &str,
        bank: &Bank,
        author: Author,
        read: Read,
        revision: Option<String>,
    ) -> Result<()> {
        let (banks, tenant, bank_id) = (self.clone(), tenant.to_owned(), bank.id.clone());
        let work = async move { banks.commit(&tenant, &bank_id, &author, read, revision).await };
        self.tasks.spawn(work).await.map_err(|error| Error::internal("storing the document broke off").with_source(error))?
    }

    /// The row is the old version's until the index has the new one; whichever of the two a search meets in between, it knows by its
    /// revision.
    async fn commit(&self, tenant: &str, bank_id: &str, author: &Author, read: Read, revision: Option<String>) -> Result<()> {
        let key = key(tenant, bank_id);
        let (mut document, mut chunks) = match read {
            Read::Same(same) => return self.commit_same(tenant, bank_id, *same, revision).await,
            Read::New(document, chunks) => (*document, chunks),
        };
        let _held = self.0.locks.document(&key, &document.id).await;
        self.check_quota(tenant, bank_id, &document.id, document.bytes).await?;
        let _busy = self.0.worker.begin(&self.store).await?;
        let is_tried_again = revision.is_some();
        let revision = match revision {
            Some(revision) => {
                self.check_waits(tenant, bank_id, &document.id, &revision).await?;
                revision
            }
            None => {
                let revision = ids::new("rev");
                let waits = Document { status: DocumentStatus::InProgress.into(), sha256: String::new(), ..document.clone() };
                let row = InsertedDocument { document: waits, revision: revision.clone() };
                let put = self.store.put_documents(tenant, bank_id, author, self.0.worker.owner(), vec![row], None).await;
                put.map_err(|error| gone(error, bank_id))?;
                revision
            }
        };
        let progress = (chunks.len() as u64, chunks.iter().filter(|chunk| !chunk.vector.is_empty()).count() as u64);
        chunks.iter_mut().for_each(|chunk| chunk.revision.clone_from(&revision));
        document.status = DocumentStatus::Completed.into();
        self.index.replace(&key, &document.id, chunks).await?;
        if !self.store.complete_document(tenant, bank_id, &document, &revision, progress).await? {
            // Another process has overtaken this one.
            match self.there(tenant, bank_id, &document.id).await? {
                // It, or its bank, was deleted: nothing of it stays.
                None => self.index.delete_documents(&key, &[document.id]).await?,
                Some(row) if row.document.status() == DocumentStatus::Cancelled => {
                    self.empty_unless_whole(&key, &row.document, &row.version, &row.revision).await?;
                }
                // Whichever came last to the index, what is the row's is put there again.
                Some(_) => {
                    self.store.redo_document(tenant, bank_id, &document.id, self.0.worker.owner()).await?;
                    if is_tried_again {
                        return Err(replaced());
                    }
                }
            }
        } else if let Some(Content::FileId(file_id)) = &document.content
            && self.is_file_gone(tenant, file_id).await
        {
            // Deleted while it was read: who did that found no document yet.
            self.remove(tenant, bank_id, &[document.id]).await?;
        }
        Ok(())
    }

    /// # Errors
    /// `Aborted` it was changed, replaced or cancelled while it was read: whose turn it is looks again.
    async fn check_waits(&self, tenant: &str, bank_id: &str, id: &str, revision: &str) -> Result<()> {
        let waits = |row: KeptDocument| row.revision == revision && row.document.status() == DocumentStatus::InProgress;
        if self.there(tenant, bank_id, id).await?.is_some_and(waits) { Ok(()) } else { Err(replaced()) }
    }

    async fn is_file_gone(&self, tenant: &str, id: &str) -> bool {
        let Some(files) = &self.files else { return false };
        let anybody = Context::new(Principal { id: "files".into(), tenant: tenant.into(), roles: vec!["admin".into()] });
        files.get_file(&anybody, GetFileRequest { id: id.into() }).await.is_err_and(|error| error.code() == Code::NotFound)
    }

    /// The content is here already: what it is called and its attributes are brought up to date.
    async fn commit_same(
        &self,
        tenant: &str,
        bank_id: &str,
        (document, there): (Document, KeptDocument),
        revision: Option<String>,
    ) -> Result<()> {
        let _held = self.0.locks.document(&key(tenant, bank_id), &document.id).await;
        if let Some(revision) = &revision {
            self.check_waits(tenant, bank_id, &document.id, revision).await?;
        }
        let there = KeptDocument { revision: revision.unwrap_or_else(|| there.revision.clone()), ..there };
        match self.rename(tenant, bank_id, &document, &there).await? {
            Some(revision) => self.store.settle_document(tenant, bank_id, &document, &revision, (0, 0)).await.map(drop),
            // Replaced or deleted meanwhile.
            None => Ok(()),
        }
    }

    pub(super) async fn there(&self, tenant: &str, bank_id: &str, id: &str) -> Result<Option<KeptDocument>> {
        match self.store.get_document(tenant, bank_id, id).await {
            Ok(there) if past(there.document.expires.as_ref()) => Ok(None),
            Ok(there) => Ok(Some(there)),
            Err(error) if error.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn window(&self, cx: &Context, bank: &Bank) -> Result<Option<usize>> {
        if bank.embedding_model.is_empty() {
            return Ok(None);
        }
        let model = self.models()?.get_model(cx, GetModelRequest { id: bank.embedding_model.clone() }).await?;
        Ok(Some(model.context_length as usize).filter(|length| *length > 0))
    }
}

/// Whether both are read and cut alike, and go with the same file: then what is the same in both has the same chunks.
fn alike(one: &Document, other: &Document) -> bool {
    let file = |document: &Document| match &document.content {
        Some(Content::FileId(id)) => Some(id.clone()),
        _ => None,
    };
    (&one.media_type, &one.chunking, file(one)) == (&other.media_type, &other.chunking, file(other))
}

/// Of two ends the first; none is never.
fn sooner(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min_by_key(|end| (end.seconds, end.nanos))
}

/// A passage seldom says what it is about: its title and heading, or a model's line, do.
fn embedded_text(title: &str, line: Option<&String>, passage: &Passage) -> String {
    let heading = passage.position.heading.as_str();
    let above = [title, heading, line.map_or("", String::as_str)];
    let above = above.into_iter().filter(|text| !text.is_empty() && !passage.text.starts_with(text));
    above.chain([passage.text.as_str()]).collect::<Vec<_>>().join("\n")
}

/// The documents that can be inserted, with their place in the request, and what is wrong with the others.
fn checked(documents: Vec<Document>, chunking: &ChunkingStrategy) -> (Vec<(u32, Document)>, Vec<ItemFailure>) {
    let (mut right, mut failures, mut seen) = (Vec::new(), Vec::new(), std::collections::HashSet::new());
    for (mut document, index) in documents.into_iter().zip(0..) {
        if document.id.is_empty() {
            document.id = ids::new("doc");
        }
        let field = |name: &str| format!("documents[{index}].{name}");
        let check = valid::id(&field("id"), &document.id)
            .and_then(|()| valid::attributes(&field("attributes"), &document.attributes))
            .and_then(|()| match document.expires {
                Some(_) if past(document.expires.as_ref()) => Err(Error::invalid(field("expires"), "expires is past")),
                _ if document.content.is_none() => {
                    Err(Error::invalid(field("content"), "the document has no content: give text, data or a file_id"))
                }
                _ if !seen.insert(document.id.clone()) => {
                    Err(Error::invalid(field("id"), format!("document {:?} is there twice in one call", document.id)))
                }
                _ => Ok(()),
            });
        if let Err(error) = check {
            failures.push(ItemFailure { index, error: Some(error.to_info()) });
            continue;
        }
        document.chunking = Some(*chunking);
        document.created = Some(ids::now());
        (document.ingestion_id, document.chunk_count) = (String::new(), 0);
        right.push((index, document));
    }
    (right, failures)
}

/// A row whose bank is not there any more.
pub(super) fn gone(error: Error, bank_id: &str) -> Error {
    if error.code() == Code::NotFound { super::access::no_such_bank(bank_id) } else { error }
}
