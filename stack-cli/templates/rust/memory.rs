//! Banks of your own. This one keeps vectors that callers bring, in memory: what to replace is `Kept`.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_stream::Stream;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::contract::{
    Bank, BankKind, CancelIngestionRequest, Chunk, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, DeleteDocumentsRequest,
    DeleteDocumentsResponse, Document, GetBankRequest, GetDocumentRequest, GetIngestionRequest, Ingestion, InsertChunksRequest,
    InsertChunksResponse, InsertDocumentsRequest, InsertDocumentsResponse, ListBanksRequest, ListBanksResponse, ListChunksRequest,
    ListChunksResponse, ListDocumentsRequest, ListDocumentsResponse, QueryRequest, QueryResponse, ScoredChunk, UpdateBankRequest,
    UpdateDocumentRequest, memory_server::Memory,
};

/// A bank and what is in it.
struct Kept {
    bank: Bank,
    chunks: BTreeMap<String, Chunk>,
}

impl Kept {
    fn insert(&mut self, chunk: Chunk) {
        self.chunks.insert(chunk.id.clone(), chunk);
        self.bank.chunk_count = self.chunks.len() as u64;
    }

    /// All of the bank, scored; the caller sorts and cuts.
    fn scored(&self, vector: &[f32]) -> Vec<ScoredChunk> {
        let scored =
            |chunk: &Chunk| ScoredChunk { chunk: Some(chunk.clone()), bank_id: self.bank.id.clone(), score: cosine(vector, &chunk.vector) };
        self.chunks.values().map(scored).collect()
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let norm = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let norms = norm(a) * norm(b);
    if norms > 0.0 { a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>() / norms } else { 0.0 }
}

/// Banks by tenant and id.
#[derive(Default)]
pub struct Provider {
    banks: Mutex<BTreeMap<(String, String), Kept>>,
    made: AtomicU64,
}

/// Whose call it is: nothing of one tenant's is ever shown to another.
fn tenant(metadata: &MetadataMap) -> String {
    let tenant = metadata.get("x-llama-stack-tenant").and_then(|value| value.to_str().ok());
    tenant.unwrap_or("default").to_owned()
}

impl Provider {
    fn banks(&self) -> MutexGuard<'_, BTreeMap<(String, String), Kept>> {
        self.banks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_bank(id: &str) -> Status {
    Status::not_found(format!("no bank {id:?}"))
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this provider keeps vectors that callers bring, and no documents"))
}

#[tonic::async_trait]
impl Memory for Provider {
    type WatchIngestionStream = Pin<Box<dyn Stream<Item = Result<Ingestion, Status>> + Send>>;

    async fn create_bank(&self, request: Request<CreateBankRequest>) -> Result<Response<Bank>, Status> {
        let tenant = tenant(request.metadata());
        let request = request.into_inner();
        let kind = request.kind();
        if !matches!(kind, BankKind::Unspecified | BankKind::Vector) || request.embedding_dimension == 0 {
            return Err(Status::invalid_argument("only banks of vectors that callers bring: embedding_dimension is needed"));
        }
        let bank = Bank {
            id: format!("bank_{}", self.made.fetch_add(1, Ordering::Relaxed)),
            name: request.name,
            kind: BankKind::Vector.into(),
            embedding_dimension: request.embedding_dimension,
            metadata: request.metadata,
            created: Some(std::time::SystemTime::now().into()),
            indexed_share: 1.0,
            ..Bank::default()
        };
        self.banks().insert((tenant, bank.id.clone()), Kept { bank: bank.clone(), chunks: BTreeMap::new() });
        Ok(Response::new(bank))
    }

    async fn get_bank(&self, request: Request<GetBankRequest>) -> Result<Response<Bank>, Status> {
        let key = (tenant(request.metadata()), request.into_inner().id);
        self.banks().get(&key).map(|kept| Response::new(kept.bank.clone())).ok_or_else(|| no_bank(&key.1))
    }

    async fn list_banks(&self, request: Request<ListBanksRequest>) -> Result<Response<ListBanksResponse>, Status> {
        let tenant = tenant(request.metadata());
        let banks = self.banks();
        let own = banks.iter().filter(|((owner, _), _)| *owner == tenant).map(|(_, kept)| kept.bank.clone());
        Ok(Response::new(ListBanksResponse { banks: own.collect(), ..ListBanksResponse::default() }))
    }

    async fn delete_bank(&self, request: Request<DeleteBankRequest>) -> Result<Response<DeleteBankResponse>, Status> {
        let key = (tenant(request.metadata()), request.into_inner().id);
        self.banks().remove(&key).map(|_| Response::new(DeleteBankResponse {})).ok_or_else(|| no_bank(&key.1))
    }

    async fn insert_chunks(&self, request: Request<InsertChunksRequest>) -> Result<Response<InsertChunksResponse>, Status> {
        let tenant = tenant(request.metadata());
        let request = request.into_inner();
        let key = (tenant, request.bank_id);
        let mut banks = self.banks();
        let kept = banks.get_mut(&key).ok_or_else(|| no_bank(&key.1))?;
        let wanted = kept.bank.embedding_dimension as usize;
        // All or none: what is wrong is found before anything is stored.
        if let Some(wrong) = request.chunks.iter().find(|chunk| chunk.vector.len() != wanted) {
            let sentence = format!("chunk {:?} has {} numbers; this bank has {wanted}", wrong.id, wrong.vector.len());
            return Err(Status::invalid_argument(sentence));
        }
        request.chunks.into_iter().for_each(|chunk| kept.insert(chunk));
        Ok(Response::new(InsertChunksResponse::default()))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        let tenant = tenant(request.metadata());
        let request = request.into_inner();
        if request.bank_ids.is_empty() {
            return Err(Status::invalid_argument("bank_ids is empty; at least one is needed"));
        }
        let banks = self.banks();
        let mut chunks = Vec::new();
        for id in request.bank_ids {
            let key = (tenant.clone(), id);
            let kept = banks.get(&key).ok_or_else(|| no_bank(&key.1))?;
            if request.vector.len() != kept.bank.embedding_dimension as usize {
                return Err(Status::invalid_argument("vector must have the bank's dimension"));
            }
            chunks.extend(kept.scored(&request.vector));
        }
        chunks.sort_by(|a, b| b.score.total_cmp(&a.score));
        chunks.truncate(if request.top_k == 0 { 10 } else { request.top_k as usize });
        Ok(Response::new(QueryResponse { chunks, ..QueryResponse::default() }))
    }

    async fn update_bank(&self, _: Request<UpdateBankRequest>) -> Result<Response<Bank>, Status> {
        not_here()
    }

    async fn insert_documents(&self, _: Request<InsertDocumentsRequest>) -> Result<Response<InsertDocumentsResponse>, Status> {
        not_here()
    }

    async fn get_document(&self, _: Request<GetDocumentRequest>) -> Result<Response<Document>, Status> {
        not_here()
    }

    async fn list_documents(&self, _: Request<ListDocumentsRequest>) -> Result<Response<ListDocumentsResponse>, Status> {
        not_here()
    }

    async fn delete_documents(&self, _: Request<DeleteDocumentsRequest>) -> Result<Response<DeleteDocumentsResponse>, Status> {
        not_here()
    }

    async fn update_document(&self, _: Request<UpdateDocumentRequest>) -> Result<Response<Document>, Status> {
        not_here()
    }

    async fn list_chunks(&self, _: Request<ListChunksRequest>) -> Result<Response<ListChunksResponse>, Status> {
        not_here()
    }

    async fn get_ingestion(&self, _: Request<GetIngestionRequest>) -> Result<Response<Ingestion>, Status> {
        not_here()
    }

    async fn cancel_ingestion(&self, _: Request<CancelIngestionRequest>) -> Result<Response<Ingestion>, Status> {
        not_here()
    }

    async fn watch_ingestion(&self, _: Request<GetIngestionRequest>) -> Result<Response<Self::WatchIngestionStream>, Status> {
        not_here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_nearest_is_found_first_and_another_tenant_finds_nothing() {
        let provider = Provider::default();
        let request = CreateBankRequest { name: "t".into(), embedding_dimension: 2, ..CreateBankRequest::default() };
        let bank_id = provider.create_bank(Request::new(request)).await.unwrap().into_inner().id;
        let chunk = |id: &str, vector: Vec<f32>| Chunk { id: id.into(), vector, ..Chunk::default() };
        let chunks = vec![chunk("east", vec![1.0, 0.0]), chunk("north", vec![0.0, 1.0])];
        let request = InsertChunksRequest { bank_id: bank_id.clone(), chunks, ..InsertChunksRequest::default() };
        provider.insert_chunks(Request::new(request)).await.unwrap();

        let request = QueryRequest { bank_ids: vec![bank_id.clone()], vector: vec![0.1, 0.9], ..QueryRequest::default() };
        let found = provider.query(Request::new(request)).await.unwrap().into_inner().chunks;
        let ids: Vec<String> = found.into_iter().map(|found| found.chunk.unwrap().id).collect();
        assert_eq!(ids, ["north", "east"]);

        let mut of_another = Request::new(GetBankRequest { id: bank_id, ..GetBankRequest::default() });
        of_another.metadata_mut().insert("x-llama-stack-tenant", "another".parse().unwrap());
        assert_eq!(provider.get_bank(of_another).await.unwrap_err().code(), tonic::Code::NotFound);
    }
}
