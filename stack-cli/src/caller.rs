//! Who this program is to the stack that it calls.

use llama_stack_core::{Context, context::Secret};

/// The API key, or token, that is shown to the stack.
pub(crate) const VARIABLE: &str = "LLAMA_STACK_API_KEY";

/// A call with the key of the environment, where there is one.
pub(crate) fn caller() -> Context {
    match std::env::var(VARIABLE).ok().filter(|key| !key.is_empty()) {
        Some(key) => Context::default().with_bearer(Secret::new(key)),
        None => Context::default(),
    }
}
