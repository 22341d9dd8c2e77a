//! What happened, read back: turns from their journals, requests from a ring in memory.

mod requests;
mod routes;
mod turns;

use std::sync::Arc;

use llama_stack_core::{Agents, Context, Error, Result, Telemetry};
use llama_stack_proto::v1::{GetTurnTraceRequest, ListRequestsRequest, ListRequestsResponse, TurnTrace};

pub(crate) use requests::{Begun, Requests};
pub(crate) use routes::routes;

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;
/// Who has this role sees every request of their tenant.
const ADMIN: &str = "admin";

/// The service over both.
pub(crate) struct History {
    agents: Arc<dyn Agents>,
    requests: Arc<Requests>,
}

impl History {
    pub(crate) fn new(agents: Arc<dyn Agents>, requests: Arc<Requests>) -> Self {
        Self { agents, requests }
    }
}

#[async_trait::async_trait]
impl Telemetry for History {
    async fn get_turn_trace(&self, cx: &Context, request: GetTurnTraceRequest) -> Result<TurnTrace> {
        turns::trace(self.agents.as_ref(), cx, request.turn_id).await
    }

    async fn list_requests(&self, cx: &Context, request: ListRequestsRequest) -> Result<ListRequestsResponse> {
        let size = if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size };
        if size > MAX_PAGE {
            return Err(Error::invalid("page_size", format!("page_size is {size}; it must be at most {MAX_PAGE}")));
        }
        let principal = cx.principal();
        let of = if principal.roles.iter().any(|role| role == ADMIN) { "" } else { principal.id.as_str() };
        Ok(ListRequestsResponse { requests: self.requests.latest(cx.tenant(), of, &request.route, size as usize) })
    }
}
