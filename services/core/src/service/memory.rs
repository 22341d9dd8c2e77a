use tonic::transport::Channel;

use llama_stack_proto::v1::{
    Bank, CancelIngestionRequest, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, DeleteDocumentsRequest,
    DeleteDocumentsResponse, Document, GetBankRequest, GetDocumentRequest, GetIngestionRequest, Ingestion, InsertChunksRequest,
    InsertChunksResponse, InsertDocumentsRequest, InsertDocumentsResponse, ListBanksRequest, ListBanksResponse, ListChunksRequest,
    ListChunksResponse, ListDocumentsRequest, ListDocumentsResponse, QueryRequest, QueryResponse, UpdateBankRequest, UpdateDocumentRequest,
    memory_client::MemoryClient, memory_server,
};

use crate::{Context, Error, EventStream, Result, grpc::grpc_service};

/// Banks of documents, and search over them.
#[async_trait::async_trait]
pub trait Memory: Send + Sync + 'static {
    async fn create_bank(&self, _cx: &Context, _request: CreateBankRequest) -> Result<Bank> {
        Err(Error::unimplemented("CreateBank"))
    }

    async fn get_bank(&self, _cx: &Context, _request: GetBankRequest) -> Result<Bank> {
        Err(Error::unimplemented("GetBank"))
    }

    async fn update_bank(&self, _cx: &Context, _request: UpdateBankRequest) -> Result<Bank> {
        Err(Error::unimplemented("UpdateBank"))
    }

    async fn list_banks(&self, _cx: &Context, _request: ListBanksRequest) -> Result<ListBanksResponse> {
        Err(Error::unimplemented("ListBanks"))
    }

    async fn delete_bank(&self, _cx: &Context, _request: DeleteBankRequest) -> Result<DeleteBankResponse> {
        Err(Error::unimplemented("DeleteBank"))
    }

    async fn insert_documents(&self, _cx: &Context, _request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        Err(Error::unimplemented("InsertDocuments"))
    }

    async fn insert_chunks(&self, _cx: &Context, _request: InsertChunksRequest) -> Result<InsertChunksResponse> {
        Err(Error::unimplemented("InsertChunks"))
    }

    async fn get_document(&self, _cx: &Context, _request: GetDocumentRequest) -> Result<Document> {
        Err(Error::unimplemented("GetDocument"))
    }

    async fn list_documents(&self, _cx: &Context, _request: ListDocumentsRequest) -> Result<ListDocumentsResponse> {
        Err(Error::unimplemented("ListDocuments"))
    }

    async fn delete_documents(&self, _cx: &Context, _request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        Err(Error::unimplemented("DeleteDocuments"))
    }

    async fn query(&self, _cx: &Context, _request: QueryRequest) -> Result<QueryResponse> {
        Err(Error::unimplemented("Query"))
    }

    async fn update_document(&self, _cx: &Context, _request: UpdateDocumentRequest) -> Result<Document> {
        Err(Error::unimplemented("UpdateDocument"))
    }

    async fn list_chunks(&self, _cx: &Context, _request: ListChunksRequest) -> Result<ListChunksResponse> {
        Err(Error::unimplemented("ListChunks"))
    }

    async fn get_ingestion(&self, _cx: &Context, _request: GetIngestionRequest) -> Result<Ingestion> {
        Err(Error::unimplemented("GetIngestion"))
    }

    async fn cancel_ingestion(&self, _cx: &Context, _request: CancelIngestionRequest) -> Result<Ingestion> {
        Err(Error::unimplemented("CancelIngestion"))
    }

    async fn watch_ingestion(&self, _cx: &Context, _request: GetIngestionRequest) -> Result<EventStream<Ingestion>> {
        Err(Error::unimplemented("WatchIngestion"))
    }
}

grpc_service!(Memory, memory_server::Memory, MemoryClient<Channel> {
    unary create_bank(CreateBankRequest) -> Bank;
    unary get_bank(GetBankRequest) -> Bank;
    unary update_bank(UpdateBankRequest) -> Bank;
    unary list_banks(ListBanksRequest) -> ListBanksResponse;
    unary delete_bank(DeleteBankRequest) -> DeleteBankResponse;
    unary insert_documents(InsertDocumentsRequest) -> InsertDocumentsResponse;
    unary insert_chunks(InsertChunksRequest) -> InsertChunksResponse;
    unary get_document(GetDocumentRequest) -> Document;
    unary list_documents(ListDocumentsRequest) -> ListDocumentsResponse;
    unary delete_documents(DeleteDocumentsRequest) -> DeleteDocumentsResponse;
    unary query(QueryRequest) -> QueryResponse;
    unary update_document(UpdateDocumentRequest) -> Document;
    unary list_chunks(ListChunksRequest) -> ListChunksResponse;
    unary get_ingestion(GetIngestionRequest) -> Ingestion;
    unary cancel_ingestion(CancelIngestionRequest) -> Ingestion;
    stream watch_ingestion(GetIngestionRequest) -> Ingestion as WatchIngestionStream;
});
