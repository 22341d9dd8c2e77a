//! Spans that a provider makes itself, because it alone knows what it says to whom.

use crate::{Context, Error};

/// What an attribute holds: conventions say which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Where traces are sent, `Deps::extensions` has an `Arc<dyn Tracer>`.
pub trait Tracer: Send + Sync + 'static {
    /// A span of a call that leaves this process, below the caller's trace; and the context that goes along with the call.
    fn client(&self, cx: &Context, name: String, attributes: Vec<(&'static str, Value)>) -> (Box<dyn OpenSpan>, Context);
}

/// Ends when it is dropped.
pub trait OpenSpan: Send {
    fn set(&mut self, key: &'static str, value: Value);

    /// Notes a failure. Only what the caller is told.
    fn fail(&mut self, error: &Error);

    /// Notes that the answer itself tells of a failure, of this stable kind.
    fn fail_as(&mut self, kind: &str);
}
