use tonic::transport::Channel;

use llama_stack_proto::v1::{
    BackupChunk, BackupRequest, EraseRequest, EraseResponse, GetInfoRequest, ListProvidersRequest, ListProvidersResponse, Provider,
    RegisterProviderRequest, StackInfo, UnregisterProviderRequest, UnregisterProviderResponse, stack_client::StackClient, stack_server,
};

use crate::{Context, Error, EventStream, Result, grpc::grpc_service};

/// What runs here.
#[async_trait::async_trait]
pub trait Stack: Send + Sync + 'static {
    async fn get_info(&self, cx: &Context, request: GetInfoRequest) -> Result<StackInfo>;

    async fn list_providers(&self, cx: &Context, request: ListProvidersRequest) -> Result<ListProvidersResponse>;

    async fn register_provider(&self, _cx: &Context, _request: RegisterProviderRequest) -> Result<Provider> {
        Err(Error::unimplemented("RegisterProvider"))
    }

    async fn unregister_provider(&self, _cx: &Context, _request: UnregisterProviderRequest) -> Result<UnregisterProviderResponse> {
        Err(Error::unimplemented("UnregisterProvider"))
    }

    async fn backup(&self, _cx: &Context, _request: BackupRequest) -> Result<EventStream<BackupChunk>> {
        Err(Error::unimplemented("Backup"))
    }

    async fn erase(&self, _cx: &Context, _request: EraseRequest) -> Result<EraseResponse> {
        Err(Error::unimplemented("Erase"))
    }
}

grpc_service!(Stack, stack_server::Stack, StackClient<Channel> {
    unary get_info(GetInfoRequest) -> StackInfo;
    unary list_providers(ListProvidersRequest) -> ListProvidersResponse;
    unary register_provider(RegisterProviderRequest) -> Provider;
    unary unregister_provider(UnregisterProviderRequest) -> UnregisterProviderResponse;
    unary erase(EraseRequest) -> EraseResponse;
    stream backup(BackupRequest) -> BackupChunk as BackupStream;
});
