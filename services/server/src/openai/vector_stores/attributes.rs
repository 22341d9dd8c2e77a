//! Attributes of files, within the bounds of the OpenAI API.

use std::collections::HashMap;

use llama_stack_core::{Error, Result, attributes};
use llama_stack_proto::v1::Value;
use serde_json::{Map, Value as Json};

const MAX_PAIRS: usize = 16;
const MAX_KEY_CHARS: usize = 64;
const MAX_VALUE_CHARS: usize = 512;

/// # Errors
/// `InvalidArgument` with the attribute's path, beyond 16 pairs, keys of 64 characters and texts of 512.
pub(super) fn read(field: &str, given: Option<&Map<String, Json>>) -> Result<HashMap<String, Value>> {
    let Some(given) = given else { return Ok(HashMap::new()) };
    if given.len() > MAX_PAIRS {
        return Err(Error::invalid(field, format!("{field} holds at most {MAX_PAIRS} pairs, not {}", given.len())));
    }
    for (key, value) in given {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            return Err(Error::invalid(field, format!("{field}: a key has 1 to {MAX_KEY_CHARS} characters")));
        }
        if value.as_str().is_some_and(|text| text.chars().count() > MAX_VALUE_CHARS) {
            let field = format!("{field}.{key}");
            return Err(Error::invalid(&field, format!("{field} has at most {MAX_VALUE_CHARS} characters")));
        }
    }
    attributes::from_json(field, given)
}

/// Metadata: as attributes, texts only.
///
/// # Errors
/// As [`read`].
pub(super) fn metadata(given: &std::collections::BTreeMap<String, String>) -> Result<()> {
    let object: Map<String, Json> = given.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    read("metadata", Some(&object)).map(drop)
}
