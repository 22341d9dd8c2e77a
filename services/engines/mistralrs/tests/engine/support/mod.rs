use std::sync::Arc;

use llama_stack_core::{Inference, Result};
use serde_json::Value;

pub(crate) use llama_stack_tests::conformance::local::*;

pub(crate) async fn build(config: Value) -> Result<Arc<dyn Inference>> {
    crate::SUBJECT.build(config).await
}
