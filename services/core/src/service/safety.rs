use tonic::transport::Channel;

use llama_stack_proto::v1::{
    GetShieldRequest, ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, safety_client::SafetyClient,
    safety_server,
};

use crate::{Context, Error, Result, grpc::grpc_service};

/// Shields that judge text at the stages of a turn.
#[async_trait::async_trait]
pub trait Safety: Send + Sync + 'static {
    async fn list_shields(&self, cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse>;

    /// # Errors
    /// `NotFound`, with the ids that there are.
    async fn get_shield(&self, cx: &Context, request: GetShieldRequest) -> Result<Shield> {
        let mut shields = self.list_shields(cx, ListShieldsRequest::default()).await?.shields;
        match shields.iter().position(|shield| shield.id == request.id) {
            Some(found) => Ok(shields.swap_remove(found)),
            None => {
                let there: Vec<&str> = shields.iter().map(|shield| shield.id.as_str()).collect();
                Err(Error::not_found(format!("no shield {:?}; there is: {}", request.id, there.join(", "))).with_reason("shield_not_found"))
            }
        }
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse>;
}

grpc_service!(Safety, safety_server::Safety, SafetyClient<Channel> {
    unary list_shields(ListShieldsRequest) -> ListShieldsResponse;
    unary get_shield(GetShieldRequest) -> Shield;
    unary run_shield(RunShieldRequest) -> RunShieldResponse;
});
