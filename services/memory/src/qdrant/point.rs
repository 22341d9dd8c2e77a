//! A chunk as a point: its id, its payload, and back.
//!
//! The payload is flat, so that each field can have an index of its type. An attribute is kept under a key that says its
//! type, since an index holds one type and an attribute may have any in each chunk.

use std::collections::HashMap;

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{Chunk, Position, Value, value::Value as Scalar};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::index::BankKey;

/// Names of the vectors.
pub const DENSE: &str = "dense";
pub const SPARSE: &str = "words";

/// Whose it is: [`owner`]. In every point and every filter.
pub const OWNER: &str = "owner";
pub const DOCUMENT: &str = "document";
pub const ID: &str = "id";
pub const INDEX: &str = "index";

/// Prefixes of the attributes' keys.
pub const TEXT: &str = "at_";
pub const NUMBER: &str = "an_";
pub const BOOLEAN: &str = "ab_";

/// Tenant and bank as one word, so that one condition holds both.
pub fn owner(bank: &BankKey) -> String {
    hex::encode(&digest(&[&bank.tenant, &bank.bank_id])[..16])
}

/// The same for the same chunk of the same bank, so that inserting it again replaces it.
pub fn point_id(bank: &BankKey, chunk: &str) -> Uuid {
    let digest = digest(&[&bank.tenant, &bank.bank_id, chunk]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Each part with its length, so that no two lists look alike.
fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// A key that Qdrant's paths take as it stands: what is neither a letter nor a digit is written as `_` and its hexadecimal.
pub fn attribute_key(prefix: &str, name: &str) -> String {
    let mut key = prefix.to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            key.push(char::from(byte));
        } else {
            key.push('_');
            key.push_str(&hex::encode([byte]));
        }
    }
    key
}

/// The name that [`attribute_key`] wrote, and `None` for other keys.
fn attribute_name(key: &str) -> Option<String> {
    let rest = [TEXT, NUMBER, BOOLEAN].iter().find_map(|prefix| key.strip_prefix(prefix))?;
    let mut parts = rest.split('_');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.extend(hex::decode(part.get(..2)?).ok()?);
        bytes.extend(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// All of a chunk but its vector.
///
/// # Errors
/// `InvalidArgument` for an attribute without a value, or a number that is not finite.
pub fn payload(bank: &BankKey, chunk: &Chunk) -> Result<Map<String, Json>> {
    let mut payload = Map::new();
    payload.insert(OWNER.into(), owner(bank).into());
    payload.insert(ID.into(), chunk.id.clone().into());
    payload.insert(DOCUMENT.into(), chunk.document_id.clone().into());
    payload.insert(INDEX.into(), chunk.index.into());
    payload.insert("text".into(), chunk.text.clone().into());
    for (key, value) in [("title", &chunk.title), ("file", &chunk.file_id)] {
        if !value.is_empty() {
            payload.insert(key.into(), value.clone().into());
        }
    }
    if let Some(Position { page, line_start, line_end, heading }) = &chunk.position {
        payload.insert("position".into(), json!({ "page": page, "line_start": line_start, "line_end": line_end, "heading": heading }));
    }
    for (name, value) in &chunk.attributes {
        let wrong = |what| Error::invalid(format!("chunks.attributes.{name}"), format!("chunk {}: {what}", chunk.id));
        let (prefix, value) = match &value.value {
            Some(Scalar::Text(text)) => (TEXT, Json::from(text.clone())),
            Some(Scalar::Boolean(boolean)) => (BOOLEAN, Json::from(*boolean)),
            Some(Scalar::Number(number)) if number.is_finite() => (NUMBER, Json::from(*number)),
            Some(Scalar::Number(_)) => return Err(wrong("a number must be finite")),
            None => return Err(wrong("a value is a text, a number or a boolean")),
        };
        payload.insert(attribute_key(prefix, name), value);
    }
    Ok(payload)
}

/// The chunk that [`payload`] wrote, without a vector.
///
/// # Errors
/// `DataLoss` for a payload that it did not write.
pub fn chunk(payload: &Map<String, Json>) -> Result<Chunk> {
    let text = |key: &str| payload.get(key).and_then(Json::as_str).map(str::to_owned);
    let missing = |key: &str| Error::new(Code::DataLoss, "a stored chunk cannot be read").with_source(format!("no {key:?} in the payload"));
    Ok(Chunk {
        id: text(ID).ok_or_else(|| missing(ID))?,
        document_id: text(DOCUMENT).ok_or_else(|| missing(DOCUMENT))?,
        text: text("text").ok_or_else(|| missing("text"))?,
        vector: Vec::new(),
        attributes: payload.iter().filter_map(|(key, value)| Some((attribute_name(key)?, attribute(value)?))).collect::<HashMap<_, _>>(),
        position: payload.get("position").map(|position| Position {
            page: small(position.get("page")),
            line_start: small(position.get("line_start")),
            line_end: small(position.get("line_end")),
            heading: position.get("heading").and_then(Json::as_str).unwrap_or_default().to_owned(),
        }),
        index: small(payload.get(INDEX)),
        title: text("title").unwrap_or_default(),
        file_id: text("file").unwrap_or_default(),
    })
}

fn attribute(value: &Json) -> Option<Value> {
    let value = match value {
        Json::String(text) => Scalar::Text(text.clone()),
        Json::Bool(boolean) => Scalar::Boolean(*boolean),
        other => Scalar::Number(other.as_f64()?),
    };
    Some(Value { value: Some(value) })
}

/// A payload's number; what a server gives back as a fraction is one all the same.
pub fn small(value: Option<&Json>) -> u32 {
    let number = value.and_then(|value| value.as_u64().or_else(|| value.as_f64().map(|number| number as u64)));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_as_it_was() {
        let bank = BankKey { tenant: "a".into(), bank_id: "b".into() };
        let attributes =
            [("plain", Scalar::Text("x".into())), ("with.dots [and] \"quotes\" ü_", Scalar::Number(-0.5)), ("", Scalar::Boolean(true))];
        let original = Chunk {
            id: "c".into(),
            document_id: "d".into(),
            text: "words".into(),
            attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), Value { value: Some(value) })).collect(),
            position: Some(Position { page: 3, line_start: 1, line_end: 2, heading: "h".into() }),
            index: 7,
            title: "t".into(),
            file_id: "file_1".into(),
            ..Chunk::default()
        };
        assert_eq!(chunk(&payload(&bank, &original).unwrap()).unwrap(), original);
    }

    #[test]
    fn ids_differ_by_tenant_bank_and_chunk_even_where_the_words_run_together() {
        let bank = |tenant: &str, bank_id: &str| BankKey { tenant: tenant.into(), bank_id: bank_id.into() };
        assert_eq!(point_id(&bank("a", "b"), "c"), point_id(&bank("a", "b"), "c"));
        assert_ne!(point_id(&bank("ab", ""), "c"), point_id(&bank("a", "b"), "c"));
        assert_ne!(point_id(&bank("a", "bc"), ""), point_id(&bank("a", "b"), "c"));
        assert_ne!(owner(&bank("ab", "")), owner(&bank("a", "b")));
    }
}
