use ::http::request::Parts;
use axum::extract::FromRequestParts;
use tonic::metadata::MetadataMap;

use llama_stack_core::Context;

use super::ApiError;

/// The context of an HTTP request, read from the headers that gRPC has as metadata.
///
/// `authorization` belongs to this stack, not to the providers behind it: the gate reads it, and it is never sent on.
pub(crate) struct Caller(pub(crate) Context);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // A request of this process's own: it knows who asks.
        if let Some(cx) = parts.extensions.get::<Context>() {
            return Ok(Self(cx.clone()));
        }
        // Lent to the metadata map and taken back, so that nothing is copied.
        let metadata = MetadataMap::from_headers(std::mem::take(&mut parts.headers));
        let context = Context::from_request(&metadata, &parts.extensions);
        parts.headers = metadata.into_headers();
        Ok(Self(context?))
    }
}
