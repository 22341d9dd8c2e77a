//! A guard before a service: each call is asked for before it is made. `grpc_service!` writes the service.

use std::{any::Any, sync::Arc};

use crate::{Context, Result};

/// A request or an answer, whatever its type.
pub type Message = dyn Any + Send + Sync;

/// Says who may do what.
#[async_trait::async_trait]
pub trait Guard: Send + Sync + 'static {
    /// Before a call. `action` is `Service.method`, for example `Agents.create_turn`; the request of an upload is `()`.
    ///
    /// # Errors
    /// `PermissionDenied`, or `NotFound` where the caller may not even know of the thing; the call is not made then.
    async fn check(&self, cx: &Context, action: &'static str, request: &Message) -> Result<()>;

    /// After a call that was answered in one piece: notes whose a new thing is, and takes out of lists what is not for the caller.
    ///
    /// # Errors
    /// As the store; the answer is not given then.
    async fn answered(&self, cx: &Context, action: &'static str, answer: &mut Message) -> Result<()>;
}

/// A service trait behind a guard; itself an implementation of the trait.
pub struct Guarded<S: ?Sized> {
    pub(crate) inner: Arc<S>,
    pub(crate) guard: Arc<dyn Guard>,
}

impl<S: ?Sized> Guarded<S> {
    pub fn new(inner: Arc<S>, guard: Arc<dyn Guard>) -> Self {
        Self { inner, guard }
    }
}
