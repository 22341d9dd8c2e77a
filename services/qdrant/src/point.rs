//! What lies in the engine for a chunk.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use llama_stack_core::{Code, Error, Result};
use llama_stack_memory::index::BankKey;
use llama_stack_proto::v1::{Chunk, value::Value as Is};
use prost::Message as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    condition::{BANK, DOCUMENT, IS, NUMBERS, TENANT, mark, number_key},
    words::{Sparse, Words},
};

/// The names of a point's vectors.
pub(crate) const DENSE: &str = "dense";
pub(crate) const WORDS: &str = "words";

pub(crate) const ID: &str = "id";
pub(crate) const INDEX: &str = "index";
const TITLE: &str = "title";
const TEXT: &str = "text";
/// All of the chunk that has no field of its own, exactly.
const REST: &str = "rest";

/// In a form between ours and those of the two engines.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) id: Uuid,
    /// Empty in a bank without vectors.
    pub(crate) dense: Vec<f32>,
    pub(crate) words: Sparse,
    pub(crate) payload: Map<String, Value>,
}

impl Point {
    pub(crate) fn new(bank: &BankKey, mut chunk: Chunk, words: &Words) -> Self {
        let (mut numbers, mut marks) = (Map::new(), Vec::new());
        for (name, value) in &chunk.attributes {
            marks.extend(mark(name, value));
            if let Some(Is::Number(number)) = value.value {
                numbers.insert(number_key(name), json!(number));
            }
        }
        let id = id(bank, &chunk.id);
        let sparse = words.of_chunk(&chunk.title, &chunk.text);
        let mut payload = Map::new();
        for (field, value) in [
            (TENANT, json!(bank.tenant)),
            (BANK, json!(bank.bank_id)),
            (DOCUMENT, json!(chunk.document_id)),
            (INDEX, json!(chunk.index)),
            (ID, json!(chunk.id)),
            (IS, json!(marks)),
            (NUMBERS, Value::Object(numbers)),
            (TITLE, json!(chunk.title)),
            (TEXT, json!(chunk.text)),
        ] {
            payload.insert(field.to_owned(), value);
        }
        let dense = std::mem::take(&mut chunk.vector);
        let rest = Chunk { text: String::new(), title: String::new(), ..chunk };
        payload.insert(REST.to_owned(), json!(STANDARD.encode(rest.encode_to_vec())));
        Self { id, dense, words: sparse, payload }
    }

    /// The fields below `numbers` that it has, which an index makes quick to compare.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = String> {
        let numbers = self.payload.get(NUMBERS).and_then(Value::as_object);
        numbers.into_iter().flatten().map(|(key, _)| format!("{NUMBERS}.{key}"))
    }
}

/// The same for the same chunk, so that it is replaced; and never another's.
pub(crate) fn id(bank: &BankKey, chunk: &str) -> Uuid {
    let part = |hash: Sha256, text: &str| hash.chain_update((text.len() as u64).to_le_bytes()).chain_update(text);
    let hash = part(part(part(Sha256::new(), &bank.tenant), &bank.bank_id), chunk).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(bytes)
}

/// The chunk that a payload was made of.
pub(crate) fn chunk(payload: &Map<String, Value>, vector: Vec<f32>) -> Result<Chunk> {
    let text = |field: &str| payload.get(field).and_then(Value::as_str).unwrap_or_default();
    let damaged = || Error::new(Code::DataLoss, "a stored chunk cannot be read");
    let rest = STANDARD.decode(text(REST)).map_err(|error| damaged().with_source(error))?;
    let mut chunk = Chunk::decode(rest.as_slice()).map_err(|error| damaged().with_source(error))?;
    text(TITLE).clone_into(&mut chunk.title);
    text(TEXT).clone_into(&mut chunk.text);
    chunk.vector = vector;
    Ok(chunk)
}
