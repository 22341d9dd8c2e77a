use tonic::transport::Channel;

use llama_stack_proto::v1::{
    GetTurnTraceRequest, ListAuditEventsRequest, ListAuditEventsResponse, ListRequestsRequest, ListRequestsResponse, ListSpansRequest,
    ListSpansResponse, TurnTrace, telemetry_client::TelemetryClient, telemetry_server,
};

use crate::{Context, Error, Result, grpc::grpc_service};

/// What happened, read back from what is kept.
#[async_trait::async_trait]
pub trait Telemetry: Send + Sync + 'static {
    async fn get_turn_trace(&self, _cx: &Context, _request: GetTurnTraceRequest) -> Result<TurnTrace> {
        Err(Error::unimplemented("GetTurnTrace"))
    }

    async fn list_requests(&self, _cx: &Context, _request: ListRequestsRequest) -> Result<ListRequestsResponse> {
        Err(Error::unimplemented("ListRequests"))
    }

    async fn list_audit_events(&self, _cx: &Context, _request: ListAuditEventsRequest) -> Result<ListAuditEventsResponse> {
        Err(Error::unimplemented("ListAuditEvents"))
    }

    async fn list_spans(&self, _cx: &Context, _request: ListSpansRequest) -> Result<ListSpansResponse> {
        Err(Error::unimplemented("ListSpans"))
    }
}

grpc_service!(Telemetry, telemetry_server::Telemetry, TelemetryClient<Channel> {
    unary get_turn_trace(GetTurnTraceRequest) -> TurnTrace;
    unary list_requests(ListRequestsRequest) -> ListRequestsResponse;
    unary list_audit_events(ListAuditEventsRequest) -> ListAuditEventsResponse;
    unary list_spans(ListSpansRequest) -> ListSpansResponse;
});
