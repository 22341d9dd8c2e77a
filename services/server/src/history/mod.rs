//! What happened, read back: turns, one by one and spans of many, from their journals; requests, and decisions about them, from the store.

mod audit;
mod log;
mod refused;
mod routes;
mod spans;
mod turns;

use std::sync::Arc;

use llama_stack_core::{Agents, Code, Context, Error, Result, Telemetry};
use llama_stack_proto::v1::{
    AuditKind, GetTurnTraceRequest, ListAuditEventsRequest, ListAuditEventsResponse, ListRequestsRequest, ListRequestsResponse,
    ListSpansRequest, ListSpansResponse, TurnTrace,
};
use llama_stack_store::Store;

pub(crate) use audit::AuditLog;
pub(crate) use log::{Begun, Log};
pub(crate) use routes::{of_page, routes};

const MAX_PAGE: u32 = 1_000;
/// Who has this role sees every request of their tenant.
const ADMIN: &str = "admin";
/// And who has this one what is no tenant's.
const OPERATOR: &str = "operator";

/// The service over all of them.
pub(crate) struct History {
    agents: Arc<dyn Agents>,
    store: Store,
    log: Arc<Log>,
}

impl History {
    pub(crate) fn new(agents: Arc<dyn Agents>, store: Store, log: Arc<Log>) -> Self {
        Self { agents, store, log }
    }

    /// What this process has seen is there, before anybody looks.
    async fn settled(&self, page_size: u32) -> Result<()> {
        check(page_size)?;
        // In a task of its own: a caller who goes away must not take along what is being written.
        let log = self.log.clone();
        let flushed = tokio::spawn(async move { log.flush().await }).await;
        flushed.unwrap_or_else(|error| Err(Error::internal("the log could not be written down").with_source(error)))
    }
}

fn check(page_size: u32) -> Result<()> {
    if page_size > MAX_PAGE {
        return Err(Error::invalid("page_size", format!("page_size is {page_size}; it must be at most {MAX_PAGE}")));
    }
    Ok(())
}

/// Of whom to tell a caller who asked about `principal`, empty: about everybody. `None`: of nobody.
fn told_of(cx: &Context, principal: String) -> Option<String> {
    let own = cx.principal();
    if own.roles.iter().any(|role| role == ADMIN) {
        return Some(principal);
    }
    (principal.is_empty() || principal == own.id).then(|| own.id.clone())
}

#[async_trait::async_trait]
impl Telemetry for History {
    async fn get_turn_trace(&self, cx: &Context, request: GetTurnTraceRequest) -> Result<TurnTrace> {
        turns::trace(self.agents.as_ref(), cx, request.turn_id).await
    }

    async fn list_requests(&self, cx: &Context, mut request: ListRequestsRequest) -> Result<ListRequestsResponse> {
        self.settled(request.page_size).await?;
        let Some(principal) = told_of(cx, request.principal) else { return Ok(ListRequestsResponse::default()) };
        request.principal = principal;
        let (requests, next_page_token) = self.store.list_requests(cx.tenant(), &request).await?;
        Ok(ListRequestsResponse { requests, next_page_token })
    }

    /// Whoever the policies of access let.
    async fn list_audit_events(&self, cx: &Context, request: ListAuditEventsRequest) -> Result<ListAuditEventsResponse> {
        let is_nobodys = request.kind() == AuditKind::Credential;
        if is_nobodys && !cx.principal().roles.iter().any(|role| role == OPERATOR) {
            let message = "who shows a wrong credential is of no tenant: reading of it takes the role operator";
            return Err(Error::new(Code::PermissionDenied, message).with_field("kind").with_reason("not_authorized"));
        }
        self.settled(request.page_size).await?;
        let tenant = if is_nobodys { audit::NOBODYS } else { cx.tenant() };
        let (events, next_page_token) = self.store.list_audit_events(tenant, &request).await?;
        Ok(ListAuditEventsResponse { events, next_page_token })
    }

    async fn list_spans(&self, cx: &Context, mut request: ListSpansRequest) -> Result<ListSpansResponse> {
        check(request.page_size)?;
        let Some(principal) = told_of(cx, request.principal) else { return Ok(ListSpansResponse::default()) };
        request.principal = principal;
        spans::list(self.agents.as_ref(), &self.store, cx, &request).await
    }
}
