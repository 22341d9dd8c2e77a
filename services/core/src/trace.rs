//! Spans that a provider makes itself, because it alone knows what it says to whom.

use crate::{Context, Error};

/// Where traces are sent, `Deps::extensions` has an `Arc<dyn Tracer>`.
pub trait Tracer: Send + Sync + 'static {
    /// A span of a call that leaves this process, below the caller's trace; and the context that goes along with the call.
    fn client(&self, cx: &Context, name: String, attributes: Vec<(&'static str, String)>) -> (Box<dyn OpenSpan>, Context);
}

/// Ends when it is dropped.
pub trait OpenSpan: Send {
    fn set(&mut self, key: &'static str, value: String);

    /// Notes a failure. Only what the caller is told.
    fn fail(&mut self, error: &Error);
}
