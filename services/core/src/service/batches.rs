use tonic::transport::Channel;

use llama_stack_proto::v1::{
    Batch, CancelBatchRequest, CreateBatchRequest, GetBatchRequest, ListBatchesRequest, ListBatchesResponse, batches_client::BatchesClient,
    batches_server,
};

use crate::{Context, Error, Result, grpc::grpc_service};

/// Many requests in one file, run in the background between interactive ones.
#[async_trait::async_trait]
pub trait Batches: Send + Sync + 'static {
    async fn create_batch(&self, _cx: &Context, _request: CreateBatchRequest) -> Result<Batch> {
        Err(Error::unimplemented("CreateBatch"))
    }

    async fn get_batch(&self, _cx: &Context, _request: GetBatchRequest) -> Result<Batch> {
        Err(Error::unimplemented("GetBatch"))
    }

    async fn list_batches(&self, _cx: &Context, _request: ListBatchesRequest) -> Result<ListBatchesResponse> {
        Err(Error::unimplemented("ListBatches"))
    }

    async fn cancel_batch(&self, _cx: &Context, _request: CancelBatchRequest) -> Result<Batch> {
        Err(Error::unimplemented("CancelBatch"))
    }
}

grpc_service!(Batches, batches_server::Batches, BatchesClient<Channel> {
    unary create_batch(CreateBatchRequest) -> Batch;
    unary get_batch(GetBatchRequest) -> Batch;
    unary list_batches(ListBatchesRequest) -> ListBatchesResponse;
    unary cancel_batch(CancelBatchRequest) -> Batch;
});
