//! What a request may hold.

use std::collections::HashMap;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Value, value::Value as Is};

const MAX_ID: usize = 512;
const MAX_NAME: usize = 256;
const MAX_ENTRIES: usize = 64;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 8_192;

/// Ten years.
const MAX_EXPIRY: u64 = 10 * 366 * 24 * 3600;

/// # Errors
/// `InvalidArgument` for what is no id: too long, or with control characters.
pub(super) fn id(field: &str, id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(Error::invalid(field, format!("{field} must be 1 to {MAX_ID} bytes without control characters")));
    }
    Ok(())
}

pub(super) fn name(name: &str) -> Result<()> {
    if name.len() > MAX_NAME || name.contains('\0') {
        return Err(Error::invalid("name", format!("name must be at most {MAX_NAME} bytes, without a NUL character")));
    }
    Ok(())
}

pub(super) fn metadata(metadata: &HashMap<String, String>) -> Result<()> {
    let fits = |(key, value): (&String, &String)| !key.is_empty() && key.len() <= MAX_KEY && value.len() <= MAX_VALUE;
    if metadata.len() > MAX_ENTRIES || !metadata.iter().all(fits) {
        let message =
            format!("metadata holds at most {MAX_ENTRIES} entries, keys of 1 to {MAX_KEY} and values of at most {MAX_VALUE} bytes");
        return Err(Error::invalid("metadata", message));
    }
    Ok(())
}

pub(super) fn attributes(field: &str, attributes: &HashMap<String, Value>) -> Result<()> {
    if attributes.len() > MAX_ENTRIES {
        return Err(Error::invalid(field, format!("{field} holds {} entries, and may hold {MAX_ENTRIES}", attributes.len())));
    }
    for (key, value) in attributes {
        let wrong = match &value.value {
            _ if key.is_empty() || key.len() > MAX_KEY => format!("keys are 1 to {MAX_KEY} bytes long"),
            None => format!("{key:?} is neither text, number nor boolean"),
            Some(Is::Text(text)) if text.len() > MAX_VALUE => format!("{key:?} is longer than {MAX_VALUE} bytes"),
            Some(Is::Number(number)) if !number.is_finite() => format!("{key:?} is not a finite number"),
            Some(_) => continue,
        };
        return Err(Error::invalid(field, format!("{field}: {wrong}")));
    }
    Ok(())
}

pub(super) fn expiry(seconds: u64) -> Result<()> {
    if seconds > MAX_EXPIRY {
        return Err(Error::invalid("expires_after_seconds", format!("expires_after_seconds must be at most {MAX_EXPIRY}; 0: never")));
    }
    Ok(())
}

/// # Errors
/// `InvalidArgument`, naming what has the vector.
pub(super) fn vector(field: &str, whose: &str, vector: &[f32], dimension: u32) -> Result<()> {
    if vector.len() != dimension as usize {
        let message = format!("the vector of {whose} has {} numbers; those of this bank have {dimension}", vector.len());
        return Err(Error::invalid(field, message).with_reason("wrong_dimension"));
    }
    if vector.iter().any(|number| !number.is_finite()) {
        return Err(Error::invalid(field, format!("the vector of {whose} has a number that is not finite")));
    }
    Ok(())
}
