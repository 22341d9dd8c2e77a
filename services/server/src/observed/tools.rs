use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Context, Result, Tools};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolGroupsResponse, ListToolsRequest, ListToolsResponse,
    RegisterToolGroupRequest, ToolGroup, UnregisterToolGroupRequest, UnregisterToolGroupResponse,
};

use super::{Observed, content, noted};

#[async_trait::async_trait]
impl Tools for Observed<dyn Tools> {
    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let attributes = match &self.telemetry {
            Some(_) => {
                let call = Some(&request.call_id).filter(|id| !id.is_empty()).map(|id| KeyValue::new("gen_ai.tool.call.id", id.clone()));
                [KeyValue::new("gen_ai.tool.name", request.name.clone())].into_iter().chain(call).collect()
            }
            None => Vec::new(),
        };
        let (mut span, below) = self.span(cx, "execute_tool", &request.name, SpanKind::Internal, attributes);
        if let (true, Some(span)) = (self.captures(), &mut span) {
            span.set("gen_ai.tool.call.arguments", content::bounded(request.arguments.clone()));
        }
        let response = noted(&mut span, self.inner.invoke_tool(&below, request).await)?;
        if let (true, Some(span)) = (response.is_error, &mut span) {
            span.fail_as("tool_error");
        }
        if let (true, Some(span)) = (self.captures() && !response.is_error, &mut span) {
            span.set("gen_ai.tool.call.result", content::result(&response.parts));
        }
        Ok(response)
    }

    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        self.inner.list_tools(cx, request).await
    }

    async fn list_tool_groups(&self, cx: &Context, request: ListToolGroupsRequest) -> Result<ListToolGroupsResponse> {
        self.inner.list_tool_groups(cx, request).await
    }

    async fn register_tool_group(&self, cx: &Context, request: RegisterToolGroupRequest) -> Result<ToolGroup> {
        self.inner.register_tool_group(cx, request).await
    }

    async fn unregister_tool_group(&self, cx: &Context, request: UnregisterToolGroupRequest) -> Result<UnregisterToolGroupResponse> {
        self.inner.unregister_tool_group(cx, request).await
    }
}
