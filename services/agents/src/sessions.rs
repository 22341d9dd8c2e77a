//! Sessions: what turns belong to.

use llama_stack_core::{Context, Result, ids};
use llama_stack_proto::v1::{CreateSessionRequest, DeleteSessionRequest, DeleteSessionResponse, Session, UpdateSessionRequest};

use crate::{check, runtime::Shared};

pub(crate) async fn create(shared: &Shared, cx: &Context, request: CreateSessionRequest) -> Result<Session> {
    check::metadata("metadata", &request.metadata)?;
    check::text("name", &request.name, check::MAX_NAME_CHARS)?;
    if !request.agent_id.is_empty() {
        shared.agent(cx.tenant(), &request.agent_id).await.map_err(|error| error.with_field("agent_id"))?;
    }
    let session = Session { id: ids::new("session"), created: Some(ids::now()), ..from(request) };
    shared.parts.store.put_session(cx.tenant(), &session).await?;
    Ok(session)
}

fn from(request: CreateSessionRequest) -> Session {
    Session { agent_id: request.agent_id, name: request.name, metadata: request.metadata, ..Session::default() }
}

pub(crate) async fn update(shared: &Shared, cx: &Context, request: UpdateSessionRequest) -> Result<Session> {
    check::metadata("metadata", &request.metadata)?;
    check::text("name", &request.name, check::MAX_NAME_CHARS)?;
    let session = shared.parts.store.get_session(cx.tenant(), &request.id).await?;
    let session = Session { name: request.name, metadata: request.metadata, ..session };
    shared.parts.store.put_session(cx.tenant(), &session).await?;
    Ok(session)
}

pub(crate) async fn delete(shared: &Shared, cx: &Context, request: DeleteSessionRequest) -> Result<DeleteSessionResponse> {
    // Its running turns find their journals gone if they are slower than this.
    shared.lives.cancel_session(cx.tenant(), &request.id);
    shared.parts.store.delete_session(cx.tenant(), &request.id).await?;
    Ok(DeleteSessionResponse {})
}
