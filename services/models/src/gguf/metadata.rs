//! The metadata of a GGUF file: the few keys that are asked for, and where the vocabulary lies.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Seek},
};

use llama_stack_core::Result;

use super::{Token, invalid, reader::Reader};

/// Real files have some dozens.
const MOST_ENTRIES: u64 = 65_536;
const LONGEST_KEY: u64 = 65_535;
/// Chat templates are some kilobytes.
const LONGEST_TEXT: u64 = 4 << 20;
const TOKENS: &str = "tokenizer.ggml.tokens";

/// What other code asks for; everything else is walked over. Keys of the architecture are matched by their ending.
const KEPT: [&str; 9] = [
    "general.architecture",
    "general.name",
    "general.alignment",
    "general.file_type",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.chat_template",
    TOKENS,
];
const KEPT_ENDINGS: [&str; 6] =
    ["_token_id", ".context_length", ".embedding_length", ".block_count", ".attention.head_count", ".attention.head_count_kv"];

pub(super) struct Metadata(HashMap<String, Value>);

enum Value {
    Number(u64),
    Truth(bool),
    Text(String),
    /// An array of strings: where its first element begins, and how many there are.
    Texts {
        start: u64,
        count: u64,
    },
    /// Negative and fractional numbers and other arrays.
    Other,
}

// The types of values, by their number in the format.
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a value of a type with a fixed size.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | BOOL => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

impl Metadata {
    pub(super) fn read<R: Read + Seek>(reader: &mut Reader<R>, entries: u64) -> Result<Self> {
        if entries > MOST_ENTRIES {
            return Err(invalid(format!("claims {entries} metadata entries; {MOST_ENTRIES} are the most")));
        }
        let mut values = HashMap::new();
        for _ in 0..entries {
            let key = reader.string("a metadata key", LONGEST_KEY)?;
            let kind = reader.u32()?;
            if KEPT.contains(&key.as_str()) || KEPT_ENDINGS.iter().any(|ending| key.ends_with(ending)) {
                let value = keep(reader, &key, kind)?;
                values.insert(key, value);
            } else {
                skip(reader, kind, 0)?;
            }
        }
        Ok(Self(values))
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.0.get(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn u32(&self, key: &str) -> Option<u32> {
        self.number(key).and_then(|number| u32::try_from(number).ok())
    }

    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        match self.0.get(key) {
            Some(Value::Truth(truth)) => Some(*truth),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn vocab_size(&self) -> Option<u32> {
        match self.0.get(TOKENS) {
            Some(Value::Texts { count, .. }) => u32::try_from(*count).ok(),
            _ => None,
        }
    }

    /// The special tokens that the file names by id, with their texts: one walk over the vocabulary, up to the last of them.
    pub(super) fn tokens<R: Read + Seek>(&self, reader: &mut Reader<R>, names: &[&'static str]) -> Result<BTreeMap<&'static str, Token>> {
        let mut found = BTreeMap::new();
        let Some(Value::Texts { start, count }) = self.0.get(TOKENS) else { return Ok(found) };
        let mut wanted = Vec::new();
        for name in names {
            let Some(id) = self.u32(&format!("tokenizer.ggml.{name}_token_id")) else { continue };
            if u64::from(id) >= *count {
                return Err(invalid(format!("its {name} token is {id}, and its vocabulary has {count} tokens")));
            }
            wanted.push((id, *name));
        }
        wanted.sort_unstable();
        reader.seek(*start)?;
        let mut next = 0;
        let mut text = String::new();
        for (id, name) in wanted {
            while next < id {
                reader.skip_string()?;
                next += 1;
            }
            if next == id {
                text = reader.string("a token", LONGEST_KEY)?;
                next += 1;
            }
            // Else two names have the same id, and `text` is that token's.
            found.insert(name, Token { id, text: text.clone() });
        }
        Ok(found)
    }
}

fn keep<R: Read + Seek>(reader: &mut Reader<R>, key: &str, kind: u32) -> Result<Value> {
    let value = match kind {
        0 => Value::Number(u64::from(reader.bytes::<1>()?[0])),
        BOOL => Value::Truth(reader.bytes::<1>()?[0] != 0),
        2 => Value::Number(u64::from(u16::from_le_bytes(reader.bytes()?))),
        4 => Value::Number(u64::from(reader.u32()?)),
        10 => Value::Number(reader.u64()?),
        // Some writers use signed types for what is never negative.
        5 => u64::try_from(i32::from_le_bytes(reader.bytes()?)).map_or(Value::Other, Value::Number),
        11 => u64::try_from(i64::from_le_bytes(reader.bytes()?)).map_or(Value::Other, Value::Number),
        STRING => Value::Text(reader.string(key, LONGEST_TEXT)?),
        ARRAY => {
            let (of, count) = (reader.u32()?, reader.u64()?);
            let start = reader.position();
            skip_elements(reader, of, count, 0)?;
            if of == STRING { Value::Texts { start, count } } else { Value::Other }
        }
        _ => {
            skip(reader, kind, 0)?;
            Value::Other
        }
    };
    Ok(value)
}

fn skip<R: Read + Seek>(reader: &mut Reader<R>, kind: u32, depth: u32) -> Result<()> {
    match (kind, width(kind)) {
        (_, Some(width)) => reader.skip(width),
        (STRING, _) => reader.skip_string(),
        // Arrays of arrays are allowed; nobody writes deep ones, and the stack has an end.
        (ARRAY, _) if depth < 4 => {
            let (of, count) = (reader.u32()?, reader.u64()?);
            skip_elements(reader, of, count, depth + 1)
        }
        (ARRAY, _) => Err(invalid("its metadata nests arrays too deep")),
        _ => Err(invalid(format!("has a metadata value of unknown type {kind}: it is damaged, or newer than this build"))),
    }
}

fn skip_elements<R: Read + Seek>(reader: &mut Reader<R>, of: u32, count: u64, depth: u32) -> Result<()> {
    if let Some(width) = width(of) {
        return reader.skip(count.saturating_mul(width));
    }
    // Each element takes bytes of the file, so a false count ends at the file's end.
    for _ in 0..count {
        skip(reader, of, depth)?;
    }
    Ok(())
}
