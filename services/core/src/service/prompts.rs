use tonic::transport::Channel;

use llama_stack_proto::v1::{
    CreatePromptRequest, DeletePromptRequest, DeletePromptResponse, GetPromptRequest, ListPromptVersionsRequest, ListPromptsRequest,
    ListPromptsResponse, Prompt, SetDefaultPromptVersionRequest, UpdatePromptRequest, prompts_client::PromptsClient, prompts_server,
};

use crate::{Context, Result, grpc::grpc_service};

/// Instructions that are kept by name, with versions and variables.
#[async_trait::async_trait]
pub trait Prompts: Send + Sync + 'static {
    async fn create_prompt(&self, cx: &Context, request: CreatePromptRequest) -> Result<Prompt>;

    async fn get_prompt(&self, cx: &Context, request: GetPromptRequest) -> Result<Prompt>;

    async fn list_prompts(&self, cx: &Context, request: ListPromptsRequest) -> Result<ListPromptsResponse>;

    async fn list_prompt_versions(&self, cx: &Context, request: ListPromptVersionsRequest) -> Result<ListPromptsResponse>;

    async fn update_prompt(&self, cx: &Context, request: UpdatePromptRequest) -> Result<Prompt>;

    async fn set_default_prompt_version(&self, cx: &Context, request: SetDefaultPromptVersionRequest) -> Result<Prompt>;

    async fn delete_prompt(&self, cx: &Context, request: DeletePromptRequest) -> Result<DeletePromptResponse>;
}

grpc_service!(Prompts, prompts_server::Prompts, PromptsClient<Channel> {
    unary create_prompt(CreatePromptRequest) -> Prompt;
    unary get_prompt(GetPromptRequest) -> Prompt;
    unary list_prompts(ListPromptsRequest) -> ListPromptsResponse;
    unary list_prompt_versions(ListPromptVersionsRequest) -> ListPromptsResponse;
    unary update_prompt(UpdatePromptRequest) -> Prompt;
    unary set_default_prompt_version(SetDefaultPromptVersionRequest) -> Prompt;
    unary delete_prompt(DeletePromptRequest) -> DeletePromptResponse;
});
