//! Chunks that are ready: with their own vectors, or to be embedded.

use std::collections::{BTreeMap, HashMap};

use llama_stack_core::{Context, Error, Result, ids};
use llama_stack_proto::v1::{
    Bank, BankKind, Chunk, Document, DocumentStatus, EmbedPurpose, InsertChunksRequest, InsertChunksResponse, ItemFailure,
};
use llama_stack_store::{InsertedDocument, NO_VERSION};

use super::{
    Banks,
    access::{Want, author, key, past},
    background::size,
    content::{MAX_PARTS, by_document},
    ingest::gone,
    valid,
};

/// Of one call.
const MAX_CHUNKS: usize = 10_000;
const MAX_TEXT: usize = 256 << 10;

impl Banks {
    /// Those that are wrong are told, and the others are stored all together.
    pub(super) async fn insert_ready(&self, cx: &Context, request: InsertChunksRequest) -> Result<InsertChunksResponse> {
        let bank = self.open(cx, &request.bank_id, Want::Change).await?;
        if bank.kind() == BankKind::KeyValue {
            return Err(Error::invalid("bank_id", "a key_value bank holds documents, not chunks: use InsertDocuments"));
        }
        let parts = request.content_parts;
        if parts.len() > MAX_PARTS {
            return Err(Error::invalid("content_parts", format!("content_parts must hold at most {MAX_PARTS}, not {}", parts.len())));
        }
        if !(usize::from(parts.is_empty())..=MAX_CHUNKS).contains(&request.chunks.len()) {
            return Err(Error::invalid("chunks", format!("chunks must hold 1 to {MAX_CHUNKS}, not {}", request.chunks.len())));
        }
        let known = described(request.documents, &request.chunks)?;
        let sources: Vec<u64> = known.values().map(|document| document.bytes).collect();
        sources.iter().try_for_each(|bytes| self.check_size(*bytes))?;
        let (mut chunks, mut failures) = (Vec::new(), Vec::new());
        let mut seen = std::collections::HashSet::new();
        for (mut chunk, index) in request.chunks.into_iter().zip(0_u32..) {
            if chunk.id.is_empty() {
                chunk.id = ids::new("chunk");
            }
            if chunk.document_id.is_empty() {
                chunk.document_id.clone_from(&chunk.id);
            }
            let twice = || Error::invalid(format!("chunks[{index}].id"), format!("chunk {:?} is there twice in one call", chunk.id));
            match check(&bank, index, &chunk).and_then(|()| if seen.insert(chunk.id.clone()) { Ok(()) } else { Err(twice()) }) {
                Ok(()) => chunks.push(chunk),
                Err(error) => failures.push(ItemFailure { index, error: Some(error.to_info()) }),
            }
        }
        let bank_id = bank.id.clone();
        if !chunks.is_empty() {
            let bytes: u64 = chunks.iter().map(|chunk| chunk.text.len() as u64).chain(sources).sum();
            self.check_quota(cx.tenant(), &bank.id, "", bytes).await?;
            self.note_use(cx.tenant(), &bank).await?;
            self.forget_expired(cx.tenant(), &bank.id).await?;
            self.embed_missing(cx, &bank, &mut chunks).await?;
            let (banks, tenant, author) = (self.clone(), cx.tenant().to_owned(), author(cx));
            let store = async move { banks.store_ready(&tenant, &bank.id, &author, chunks, known).await };
            self.tasks.spawn(store).await.map_err(|error| Error::internal("storing the chunks broke off").with_source(error))??;
        } else if !parts.is_empty() {
            self.note_use(cx.tenant(), &bank).await?;
        }
        for (document, parts) in by_document(parts) {
            self.put_parts(cx.tenant(), &bank_id, &document, parts).await?;
        }
        Ok(InsertChunksResponse { failures })
    }

    async fn embed_missing(&self, cx: &Context, bank: &Bank, chunks: &mut [Chunk]) -> Result<()> {
        if bank.kind() != BankKind::Vector {
            return Ok(());
        }
        let missing: Vec<&mut Chunk> = chunks.iter_mut().filter(|chunk| chunk.vector.is_empty()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = missing.iter().map(|chunk| chunk.text.clone()).collect();
        let vectors = self.embed(cx, &bank.embedding_model, &texts, EmbedPurpose::Document).await?;
        missing.into_iter().zip(vectors).for_each(|(chunk, vector)| chunk.vector = vector);
        Ok(())
    }

    /// The documents' rows first, so that nothing is found that cannot be listed and deleted.
    async fn store_ready(
        &self,
        tenant: &str,
        bank_id: &str,
        author: &llama_stack_store::Author,
        mut chunks: Vec<Chunk>,
        mut known: HashMap<String, Document>,
    ) -> Result<()> {
        let key = key(tenant, bank_id);
        // As many documents as there may be, so the whole bank waits; but never two of them for each other.
        let _alone = self.0.locks.bank(&key).await;
        let mut documents: BTreeMap<String, Document> = BTreeMap::new();
        for chunk in &chunks {
            let document = documents.entry(chunk.document_id.clone()).or_default();
            document.chunk_count = document.chunk_count.max(chunk.index.saturating_add(1));
            document.bytes += chunk.text.len() as u64;
            document.title.clone_from(&chunk.title);
            document.attributes.clone_from(&chunk.attributes);
        }
        let (mut rows, mut versions) = (Vec::new(), HashMap::new());
        for (id, document) in documents {
            let there = self.there(tenant, bank_id, &id).await?;
            let in_progress = there.as_ref().is_some_and(|there| there.document.status() == DocumentStatus::InProgress);
            let version = match &there {
                Some(there) if there.version != NO_VERSION => there.version.clone(),
                // Until those that it is to have take their place.
                Some(there) if in_progress => there.revision.clone(),
                _ => String::new(),
            };
            let has_version = there.as_ref().is_some_and(|there| there.version != NO_VERSION);
            versions.insert(id.clone(), version);
            let document = match there {
                Some(_) if in_progress => continue,
                // Of a document that was read from a text, that stays what it is.
                Some(there) if there.document.content.is_some() && has_version => continue,
                Some(there) => Document { chunk_count: there.document.chunk_count.max(document.chunk_count), ..there.document },
                None => {
                    let known = match known.remove(&id) {
                        Some(known) => Document {
                            chunk_count: known.chunk_count.max(document.chunk_count),
                            // Of a source they are the source's, however its chunks overlap.
                            bytes: if known.sha256.is_empty() { known.bytes.max(document.bytes) } else { known.bytes },
                            created: known.created.or_else(|| Some(ids::now())),
                            ..known
                        },
                        None => Document { created: Some(ids::now()), id, ..document },
                    };
                    Document { status: DocumentStatus::Completed.into(), ..known }
                }
            };
            rows.push(InsertedDocument { document, revision: ids::new("rev") });
        }
        if !rows.is_empty() {
            self.store.put_documents(tenant, bank_id, author, "", rows, None).await.map_err(|error| gone(error, bank_id))?;
        }
        for chunk in &mut chunks {
            chunk.revision = versions.get(&chunk.document_id).cloned().unwrap_or_default();
        }
        self.index.upsert(&key, chunks).await
    }
}

/// What is said of documents, by their ids.
fn described(documents: Vec<Document>, chunks: &[Chunk]) -> Result<HashMap<String, Document>> {
    if documents.len() > chunks.len() {
        let message = format!("documents must hold no more than there are chunks, {}, not {}", chunks.len(), documents.len());
        return Err(Error::invalid("documents", message));
    }
    let mut known = HashMap::with_capacity(documents.len());
    for (document, index) in documents.into_iter().zip(0_u32..) {
        let field = |name: &str| format!("documents[{index}].{name}");
        valid::id(&field("id"), &document.id)?;
        valid::attributes(&field("attributes"), &document.attributes)?;
        if past(document.expires.as_ref()) {
            return Err(Error::invalid(field("expires"), "expires is past"));
        }
        let document = Document { bytes: document.bytes.max(size(&document)), error: None, ingestion_id: String::new(), ..document };
        known.insert(document.id.clone(), document);
    }
    Ok(known)
}

fn check(bank: &Bank, index: u32, chunk: &Chunk) -> Result<()> {
    let field = |name: &str| format!("chunks[{index}].{name}");
    let whose = format!("chunk {:?}", chunk.id);
    valid::id(&field("id"), &chunk.id)?;
    valid::id(&field("document_id"), &chunk.document_id)?;
    valid::attributes(&field("attributes"), &chunk.attributes)?;
    if chunk.text.len() > MAX_TEXT || chunk.title.len() > MAX_TEXT {
        return Err(Error::invalid(field("text"), format!("the text of {whose} has {} bytes, and may have {MAX_TEXT}", chunk.text.len())));
    }
    match bank.kind() {
        BankKind::Vector if !chunk.vector.is_empty() => {
            return valid::vector(&field("vector"), &whose, &chunk.vector, bank.embedding_dimension);
        }
        BankKind::Vector if bank.embedding_model.is_empty() => {
            let message = format!("{whose} has no vector, and this bank has no model to make one");
            return Err(Error::invalid(field("vector"), message).with_reason("no_embedding_model"));
        }
        BankKind::Keyword if !chunk.vector.is_empty() => {
            return Err(Error::invalid(field("vector"), format!("{whose} has a vector, and a keyword bank keeps none")));
        }
        _ => {}
    }
    if chunk.text.trim().is_empty() {
        return Err(Error::invalid(field("text"), format!("{whose} has no text")));
    }
    Ok(())
}
