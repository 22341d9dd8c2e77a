//! Banks and files in memory: every line of a file is a chunk, and a chunk is as good as the words that it shares with a query.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use llama_stack_core::{Context, Error, Files, Memory, Result, ids, page};
use llama_stack_proto::v1::{
    Bank, BankKind, CancelIngestionRequest, Chunk, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, DeleteDocumentsRequest,
    DeleteDocumentsResponse, Document, DocumentStatus, ErrorInfo, File, Filter, GetBankRequest, GetDocumentRequest, GetFileRequest,
    GetIngestionRequest, Ingestion, InsertChunksRequest, InsertChunksResponse, InsertDocumentsRequest, InsertDocumentsResponse,
    ItemFailure, ListBanksRequest, ListBanksResponse, ListChunksRequest, ListChunksResponse, ListDocumentsRequest, ListDocumentsResponse,
    QueryRequest, QueryResponse, ScoredChunk, UpdateBankRequest, UpdateDocumentRequest, filter,
};

#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    files: BTreeMap<String, &'static str>,
    banks: BTreeMap<String, Bank>,
    documents: BTreeMap<(String, String), Document>,
    chunks: BTreeMap<(String, String), Chunk>,
    ingestions: BTreeMap<String, Ingestion>,
    asked: Vec<QueryRequest>,
}

impl Shelf {
    /// With files, by id. One whose text is `broken` cannot be read.
    pub(crate) fn with(files: &[(&str, &'static str)]) -> Self {
        let shelf = Self::default();
        shelf.0.lock().unwrap().files = files.iter().map(|(id, text)| ((*id).to_owned(), *text)).collect();
        shelf
    }

    pub(crate) fn last_asked(&self) -> QueryRequest {
        self.0.lock().unwrap().asked.last().cloned().unwrap()
    }
}

fn no_bank(id: &str) -> Error {
    Error::not_found(format!("no bank {id:?}")).with_reason("bank_not_found")
}

impl Held {
    fn bank(&self, id: &str) -> Result<Bank> {
        let mut bank = self.banks.get(id).cloned().ok_or_else(|| no_bank(id))?;
        for document in self.documents.iter().filter(|((bank, _), _)| bank == id).map(|(_, document)| document) {
            let status = if document.status() == DocumentStatus::Failed { "failed" } else { "completed" };
            *bank.document_status_counts.entry(status.into()).or_default() += 1;
            bank.bytes_used += document.bytes;
        }
        Ok(bank)
    }

    fn document(&self, bank: &str, id: &str) -> Result<Document> {
        self.bank(bank)?;
        let missing = || Error::not_found(format!("no document {id:?}")).with_reason("document_not_found");
        self.documents.get(&(bank.to_owned(), id.to_owned())).cloned().ok_or_else(missing)
    }

    fn insert(&mut self, bank: &str, ingestion: &str, mut document: Document) {
        let text = self.files.get(&document.id).copied().unwrap_or_default();
        document.created = Some(ids::now());
        document.ingestion_id = ingestion.into();
        document.bytes = text.len() as u64;
        document.set_status(if text == "broken" { DocumentStatus::Failed } else { DocumentStatus::Completed });
        document.error = (text == "broken").then(|| ErrorInfo {
            code: "INVALID_ARGUMENT".into(),
            message: "the file cannot be read".into(),
            ..ErrorInfo::default()
        });
        for (index, line) in (0..).zip(text.lines().filter(|_| document.error.is_none())) {
            let chunk = Chunk {
                id: format!("{}-{index}", document.id),
                document_id: document.id.clone(),
                file_id: document.id.clone(),
                title: document.title.clone(),
                text: line.into(),
                attributes: document.attributes.clone(),
                index,
                ..Chunk::default()
            };
            self.chunks.insert((bank.to_owned(), chunk.id.clone()), chunk);
        }
        self.documents.insert((bank.to_owned(), document.id.clone()), document);
    }
}

/// Comparisons for equality, and their combinations.
fn passes(chunk: &Chunk, filter: &Filter) -> bool {
    match &filter.filter {
        Some(filter::Filter::All(filters)) => filters.filters.iter().all(|filter| passes(chunk, filter)),
        Some(filter::Filter::Any(filters)) => filters.filters.iter().any(|filter| passes(chunk, filter)),
        Some(filter::Filter::Comparison(comparison)) => chunk.attributes.get(&comparison.attribute) == comparison.values.first(),
        None => true,
    }
}

fn score(text: &str, query: &str) -> f32 {
    let words = |text: &str| text.to_lowercase().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (text, query) = (words(text), words(query));
    query.iter().filter(|word| text.contains(word)).count() as f32 / query.len().max(1) as f32
}

#[async_trait::async_trait]
impl Memory for Shelf {
    async fn create_bank(&self, _: &Context, request: CreateBankRequest) -> Result<Bank> {
        let bank = Bank {
            id: ids::new("bank"),
            name: request.name,
            kind: BankKind::Vector.into(),
            metadata: request.metadata,
            created: Some(ids::now()),
            expires_after_seconds: request.expires_after_seconds,
            chunking: request.chunking,
            ..Bank::default()
        };
        self.0.lock().unwrap().banks.insert(bank.id.clone(), bank.clone());
        Ok(bank)
    }

    async fn get_bank(&self, _: &Context, request: GetBankRequest) -> Result<Bank> {
        self.0.lock().unwrap().bank(&request.id)
    }

    async fn update_bank(&self, _: &Context, request: UpdateBankRequest) -> Result<Bank> {
        let mut held = self.0.lock().unwrap();
        let bank = held.banks.get_mut(&request.id).ok_or_else(|| no_bank(&request.id))?;
        bank.name = request.name.unwrap_or(bank.name.clone());
        bank.expires_after_seconds = request.expires_after_seconds.unwrap_or(bank.expires_after_seconds);
        if request.replace_metadata {
            bank.metadata = request.metadata;
        }
        held.bank(&request.id)
    }

    async fn list_banks(&self, _: &Context, request: ListBanksRequest) -> Result<ListBanksResponse> {
        let mut banks: Vec<Bank> = self.0.lock().unwrap().banks.values().cloned().collect();
        if request.newest_first {
            banks.reverse();
        }
        let (banks, next_page_token) = page::slice(banks, |bank| &bank.id, 2, 2, &request.page_token)?;
        Ok(ListBanksResponse { banks, next_page_token })
    }

    async fn delete_bank(&self, _: &Context, request: DeleteBankRequest) -> Result<DeleteBankResponse> {
        self.0.lock().unwrap().banks.remove(&request.id).ok_or_else(|| no_bank(&request.id))?;
        Ok(DeleteBankResponse {})
    }

    async fn insert_documents(&self, _: &Context, request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        let mut held = self.0.lock().unwrap();
        held.bank(&request.bank_id)?;
        let mut ingestion = Ingestion {
            id: ids::new("ing"),
            bank_id: request.bank_id.clone(),
            status: DocumentStatus::Completed.into(),
            documents: request.documents.len() as u32,
            ..Ingestion::default()
        };
        for document in request.documents {
            held.insert(&request.bank_id, &ingestion.id, document);
        }
        let failed = held.documents.values().filter(|document| document.ingestion_id == ingestion.id && document.error.is_some());
        ingestion.failed = failed.count() as u32;
        ingestion.completed = ingestion.documents - ingestion.failed;
        held.ingestions.insert(ingestion.id.clone(), ingestion.clone());
        Ok(InsertDocumentsResponse { ingestion: Some(ingestion), ..InsertDocumentsResponse::default() })
    }

    async fn insert_chunks(&self, _: &Context, request: InsertChunksRequest) -> Result<InsertChunksResponse> {
        let mut held = self.0.lock().unwrap();
        held.bank(&request.bank_id)?;
        let mut failures = Vec::new();
        for (index, chunk) in (0..).zip(request.chunks) {
            if chunk.vector.len() == 1 {
                let error = ErrorInfo { code: "INVALID_ARGUMENT".into(), message: "1 dimension, not 2".into(), ..ErrorInfo::default() };
                failures.push(ItemFailure { index, error: Some(error) });
            } else {
                held.chunks.insert((request.bank_id.clone(), chunk.id.clone()), chunk);
            }
        }
        Ok(InsertChunksResponse { failures })
    }

    async fn get_document(&self, _: &Context, request: GetDocumentRequest) -> Result<Document> {
        self.0.lock().unwrap().document(&request.bank_id, &request.document_id)
    }

    async fn list_documents(&self, _: &Context, request: ListDocumentsRequest) -> Result<ListDocumentsResponse> {
        let held = self.0.lock().unwrap();
        let wanted = |document: &&Document| {
            (request.status() == DocumentStatus::Unspecified || document.status() == request.status())
                && (request.ingestion_id.is_empty() || document.ingestion_id == request.ingestion_id)
        };
        let own = held.documents.iter().filter(|((bank, _), _)| *bank == request.bank_id).map(|(_, document)| document);
        let mut documents: Vec<Document> = own.filter(wanted).cloned().collect();
        if request.newest_first {
            documents.reverse();
        }
        let (documents, next_page_token) = page::slice(documents, |document| &document.id, 2, 2, &request.page_token)?;
        Ok(ListDocumentsResponse { documents, next_page_token })
    }

    async fn delete_documents(&self, _: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        let mut held = self.0.lock().unwrap();
        let gone = |bank: &str, document: &String| bank == request.bank_id && request.document_ids.contains(document);
        held.documents.retain(|(bank, id), _| !gone(bank, id));
        held.chunks.retain(|(bank, _), chunk| !gone(bank, &chunk.document_id));
        Ok(DeleteDocumentsResponse { deleted: 1 })
    }

    async fn update_document(&self, _: &Context, request: UpdateDocumentRequest) -> Result<Document> {
        let mut held = self.0.lock().unwrap();
        let mut document = held.document(&request.bank_id, &request.document_id)?;
        document.attributes = request.attributes;
        held.documents.insert((request.bank_id, request.document_id), document.clone());
        Ok(document)
    }

    async fn list_chunks(&self, _: &Context, request: ListChunksRequest) -> Result<ListChunksResponse> {
        let held = self.0.lock().unwrap();
        let own = held.chunks.iter().filter(|((bank, _), chunk)| *bank == request.bank_id && chunk.document_id == request.document_id);
        let chunks: Vec<Chunk> = own.map(|(_, chunk)| chunk.clone()).collect();
        let (chunks, next_page_token) = page::slice(chunks, |chunk| &chunk.id, 2, 2, &request.page_token)?;
        Ok(ListChunksResponse { chunks, next_page_token })
    }

    async fn get_ingestion(&self, _: &Context, request: GetIngestionRequest) -> Result<Ingestion> {
        let missing = || Error::not_found("no ingestion").with_reason("ingestion_not_found");
        self.0.lock().unwrap().ingestions.get(&request.id).cloned().ok_or_else(missing)
    }

    async fn cancel_ingestion(&self, cx: &Context, request: CancelIngestionRequest) -> Result<Ingestion> {
        self.get_ingestion(cx, GetIngestionRequest { bank_id: request.bank_id, id: request.id }).await
    }

    async fn query(&self, _: &Context, request: QueryRequest) -> Result<QueryResponse> {
        let mut held = self.0.lock().unwrap();
        held.asked.push(request.clone());
        let mut chunks = Vec::new();
        for bank_id in &request.bank_ids {
            held.bank(bank_id)?;
            let own = held.chunks.iter().filter(|((bank, _), _)| bank == bank_id).map(|(_, chunk)| chunk);
            let found = own.filter(|chunk| request.filter.as_ref().is_none_or(|filter| passes(chunk, filter)));
            let scored = found.map(|chunk| (score(&chunk.text, &request.text), chunk.clone())).filter(|(score, _)| *score > 0.0);
            chunks.extend(scored.map(|(score, chunk)| ScoredChunk { chunk: Some(chunk), bank_id: bank_id.clone(), score }));
        }
        let answer = QueryResponse { chunks, ..QueryResponse::default() };
        Ok(QueryResponse { chunks: QueryResponse::merged([answer], request.top_k as usize), ..QueryResponse::default() })
    }
}

#[async_trait::async_trait]
impl Files for Shelf {
    async fn get_file(&self, _: &Context, request: GetFileRequest) -> Result<File> {
        let held = self.0.lock().unwrap();
        let missing = || Error::not_found(format!("no file {:?}", request.id)).with_reason("file_not_found");
        held.files.get(&request.id).ok_or_else(missing)?;
        Ok(File { filename: format!("{}.txt", request.id), media_type: "text/plain".into(), id: request.id, ..File::default() })
    }
}
