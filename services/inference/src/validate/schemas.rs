//! JSON Schemas, checked once each: the same tools come with every request of a conversation.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use serde_json::Value;

use llama_stack_core::{Error, Result};

/// Bounds what is kept: at most so many schemas, none longer than this. Beyond it schemas are simply checked again.
const MAX_KEPT: usize = 512;
const MAX_KEPT_BYTES: usize = 64 << 10;

/// Texts that are known to be valid schemas.
#[derive(Default)]
pub(super) struct Schemas(RwLock<HashSet<Box<str>>>);

impl Schemas {
    /// # Errors
    /// `InvalidArgument` at `field` for a text that is no JSON, no object, or no JSON Schema.
    pub(super) fn check(&self, field: impl FnOnce() -> String, text: &str) -> Result<()> {
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains(text) {
            return Ok(());
        }
        compile(&field(), text)?;
        if text.len() <= MAX_KEPT_BYTES {
            let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
            kept.insert(text.into());
        }
        Ok(())
    }
}

fn compile(field: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid(field, format!("{field} is empty; it must be a JSON Schema")));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| Error::invalid(field, format!("{field} is not valid JSON: {error}")))?;
    if !schema.is_object() {
        return Err(Error::invalid(field, format!("{field} is not a JSON object; it must be a JSON Schema like {{\"type\": \"object\"}}")));
    }
    let bad = |error: jsonschema::ValidationError<'_>| {
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
        Error::invalid(field, format!("{field} is not a valid JSON Schema{place}: {}", bounded(&error.to_string())))
    };
    jsonschema::validator_for(&schema).map(drop).map_err(bad)
}

/// jsonschema quotes the offending value, which may be a whole schema.
fn bounded(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
