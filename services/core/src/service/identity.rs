use tonic::transport::Channel;

use llama_stack_proto::v1::{
    ApiKey, Caller, CreateApiKeyRequest, GetApiKeyRequest, GetCallerRequest, HandOverRequest, HandOverResponse, IssuedApiKey,
    ListApiKeysRequest, ListApiKeysResponse, RevokeApiKeyRequest, RotateApiKeyRequest, identity_client::IdentityClient, identity_server,
};

use crate::{Context, Error, Result, grpc::grpc_service};

/// Who calls, and the API keys that say so.
#[async_trait::async_trait]
pub trait Identity: Send + Sync + 'static {
    async fn get_caller(&self, cx: &Context, request: GetCallerRequest) -> Result<Caller>;

    async fn create_api_key(&self, _cx: &Context, _request: CreateApiKeyRequest) -> Result<IssuedApiKey> {
        Err(Error::unimplemented("CreateApiKey"))
    }

    async fn get_api_key(&self, _cx: &Context, _request: GetApiKeyRequest) -> Result<ApiKey> {
        Err(Error::unimplemented("GetApiKey"))
    }

    async fn list_api_keys(&self, _cx: &Context, _request: ListApiKeysRequest) -> Result<ListApiKeysResponse> {
        Err(Error::unimplemented("ListApiKeys"))
    }

    async fn rotate_api_key(&self, _cx: &Context, _request: RotateApiKeyRequest) -> Result<IssuedApiKey> {
        Err(Error::unimplemented("RotateApiKey"))
    }

    async fn revoke_api_key(&self, _cx: &Context, _request: RevokeApiKeyRequest) -> Result<ApiKey> {
        Err(Error::unimplemented("RevokeApiKey"))
    }

    async fn hand_over(&self, _cx: &Context, _request: HandOverRequest) -> Result<HandOverResponse> {
        Err(Error::unimplemented("HandOver"))
    }
}

grpc_service!(Identity, identity_server::Identity, IdentityClient<Channel> {
    unary get_caller(GetCallerRequest) -> Caller;
    unary create_api_key(CreateApiKeyRequest) -> IssuedApiKey;
    unary get_api_key(GetApiKeyRequest) -> ApiKey;
    unary list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse;
    unary rotate_api_key(RotateApiKeyRequest) -> IssuedApiKey;
    unary revoke_api_key(RevokeApiKeyRequest) -> ApiKey;
    unary hand_over(HandOverRequest) -> HandOverResponse;
});
