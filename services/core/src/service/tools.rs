use tonic::transport::Channel;

use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolGroupsResponse, ListToolsRequest, ListToolsResponse,
    RegisterToolGroupRequest, ToolGroup, UnregisterToolGroupRequest, UnregisterToolGroupResponse, tools_client::ToolsClient, tools_server,
};

use crate::{Context, Error, Result, grpc::grpc_service};

/// What a model may have done in the world.
#[async_trait::async_trait]
pub trait Tools: Send + Sync + 'static {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse>;

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse>;

    async fn list_tool_groups(&self, _cx: &Context, _request: ListToolGroupsRequest) -> Result<ListToolGroupsResponse> {
        Err(Error::unimplemented("ListToolGroups"))
    }

    async fn register_tool_group(&self, _cx: &Context, _request: RegisterToolGroupRequest) -> Result<ToolGroup> {
        Err(Error::unimplemented("RegisterToolGroup"))
    }

    async fn unregister_tool_group(&self, _cx: &Context, _request: UnregisterToolGroupRequest) -> Result<UnregisterToolGroupResponse> {
        Err(Error::unimplemented("UnregisterToolGroup"))
    }
}

grpc_service!(Tools, tools_server::Tools, ToolsClient<Channel> {
    unary list_tools(ListToolsRequest) -> ListToolsResponse;
    unary invoke_tool(InvokeToolRequest) -> InvokeToolResponse;
    unary list_tool_groups(ListToolGroupsRequest) -> ListToolGroupsResponse;
    unary register_tool_group(RegisterToolGroupRequest) -> ToolGroup;
    unary unregister_tool_group(UnregisterToolGroupRequest) -> UnregisterToolGroupResponse;
});
