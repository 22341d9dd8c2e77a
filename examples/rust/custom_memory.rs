//! A memory of your own: banks that are searched by shared words. Implement `Memory`, listen, name the address in the manifest:
//!
//! ```yaml
//! memory:
//!   - { id: words, type: remote::grpc, config: { url: "http://127.0.0.1:9010" } }
//! ```
//!
//! `cargo run --release --bin custom_memory`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use llama_stack_core::{
    Context, Error, Memory, Result,
    grpc::{MAX_MESSAGE_BYTES, Served},
};
use llama_stack_proto::v1::{
    Bank, BankKind, Chunk, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, DeleteDocumentsRequest, DeleteDocumentsResponse,
    Document, GetBankRequest, InsertDocumentsRequest, InsertDocumentsResponse, ListBanksRequest, ListBanksResponse, QueryRequest,
    QueryResponse, ScoredChunk, document, memory_server::MemoryServer,
};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

/// Banks by tenant and id, each with its documents. What a caller may see is the provider's to decide.
#[derive(Default)]
struct Words {
    banks: Mutex<BTreeMap<(String, String), Kept>>,
    made: AtomicUsize,
}

#[derive(Clone)]
struct Kept {
    bank: Bank,
    documents: BTreeMap<String, Document>,
}

impl Words {
    fn banks(&self) -> MutexGuard<'_, BTreeMap<(String, String), Kept>> {
        self.banks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_id(&self, kind: &str) -> String {
        format!("{kind}_{}", self.made.fetch_add(1, Ordering::Relaxed))
    }
}

fn key(cx: &Context, bank: &str) -> (String, String) {
    (cx.tenant().to_owned(), bank.to_owned())
}

fn no_bank(id: &str) -> Error {
    Error::not_found(format!("no bank {id:?}")).with_reason("bank_not_found")
}

fn words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[async_trait::async_trait]
impl Memory for Words {
    async fn create_bank(&self, cx: &Context, request: CreateBankRequest) -> Result<Bank> {
        let bank = Bank { id: self.new_id("bank"), name: request.name, kind: BankKind::Keyword.into(), ..Bank::default() };
        self.banks().insert(key(cx, &bank.id), Kept { bank: bank.clone(), documents: BTreeMap::new() });
        Ok(bank)
    }

    async fn get_bank(&self, cx: &Context, request: GetBankRequest) -> Result<Bank> {
        self.banks().get(&key(cx, &request.id)).map(|kept| kept.bank.clone()).ok_or_else(|| no_bank(&request.id))
    }

    async fn list_banks(&self, cx: &Context, _: ListBanksRequest) -> Result<ListBanksResponse> {
        let banks = self.banks();
        let mine = banks.iter().filter(|((tenant, _), _)| tenant == cx.tenant()).map(|(_, kept)| kept.bank.clone());
        Ok(ListBanksResponse { banks: mine.collect(), next_page_token: String::new() })
    }

    async fn delete_bank(&self, cx: &Context, request: DeleteBankRequest) -> Result<DeleteBankResponse> {
        self.banks().remove(&key(cx, &request.id)).map(|_| DeleteBankResponse {}).ok_or_else(|| no_bank(&request.id))
    }

    async fn insert_documents(&self, cx: &Context, request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        let mut banks = self.banks();
        let kept = banks.get_mut(&key(cx, &request.bank_id)).ok_or_else(|| no_bank(&request.bank_id))?;
        let mut response = InsertDocumentsResponse::default();
        for mut document in request.documents {
            if document.id.is_empty() {
                document.id = self.new_id("doc");
            }
            response.document_ids.push(document.id.clone());
            kept.documents.insert(document.id.clone(), document);
        }
        Ok(response)
    }

    async fn delete_documents(&self, cx: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        let mut banks = self.banks();
        let kept = banks.get_mut(&key(cx, &request.bank_id)).ok_or_else(|| no_bank(&request.bank_id))?;
        // Where a file is named, what is of something else by now stays.
        let is_of = |document: &Document| matches!(&document.content, Some(document::Content::FileId(file)) if *file == request.file_id);
        let before = kept.documents.len();
        kept.documents.retain(|id, document| !request.document_ids.contains(id) || !(request.file_id.is_empty() || is_of(document)));
        Ok(DeleteDocumentsResponse { deleted: (before - kept.documents.len()) as u32 })
    }

    async fn query(&self, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        if request.bank_ids.is_empty() {
            return Err(Error::invalid("bank_ids", "bank_ids is empty: name a bank"));
        }
        let asked = words(&request.text);
        let banks = self.banks();
        let mut chunks = Vec::new();
        for id in &request.bank_ids {
            let kept = banks.get(&key(cx, id)).ok_or_else(|| no_bank(id))?;
            for document in kept.documents.values() {
                let Some(document::Content::Text(text)) = &document.content else { continue };
                let score = words(text).intersection(&asked).count() as f32 / asked.len().max(1) as f32;
                let id_of = document.id.clone();
                let chunk = Chunk { id: id_of.clone(), document_id: id_of, text: text.clone(), ..Chunk::default() };
                chunks.push(ScoredChunk { chunk: Some(chunk), bank_id: id.clone(), score });
            }
        }
        chunks.retain(|found| found.score > 0.0);
        chunks.sort_by(|a, b| b.score.total_cmp(&a.score));
        chunks.truncate(if request.top_k == 0 { 10 } else { request.top_k as usize });
        Ok(QueryResponse { chunks, ..QueryResponse::default() })
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9010".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    let memory: Arc<dyn Memory> = Arc::new(Words::default());
    let server =
        tonic::transport::Server::builder().add_service(MemoryServer::new(Served(memory)).max_decoding_message_size(MAX_MESSAGE_BYTES));
    server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await?;
    Ok(())
}
