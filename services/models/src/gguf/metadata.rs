//! The metadata of a GGUF file: the few keys that are asked for, and where the vocabulary lies.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Seek},
};

use llama_stack_core::Result;

use super::{PerLayer, Token, invalid, reader::Reader};

/// Real files have some dozens.
const MOST_ENTRIES: u64 = 65_536;
const LONGEST_KEY: u64 = 65_535;
/// Chat templates are some kilobytes.
const LONGEST_TEXT: u64 = 4 << 20;
/// Lists of numbers have one for each layer; a longer one is something else.
const MOST_LAYERS: u64 = 4096;
const TOKENS: &str = "tokenizer.ggml.tokens";

/// What other code asks for; everything else is walked over. Keys of the architecture are matched by their ending.
const KEPT: [&str; 11] = [
    "general.architecture",
    "general.name",
    "general.alignment",
    "general.file_type",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.chat_template",
    "split.no",
    "split.count",
    TOKENS,
];
const KEPT_ENDINGS: [&str; 19] = [
    "_token_id",
    ".context_length",
    ".embedding_length",
    ".block_count",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.key_length_swa",
    ".attention.value_length",
    ".attention.value_length_swa",
    ".feed_forward_length",
    ".expert_feed_forward_length",
    ".expert_used_count",
    ".ssm.conv_kernel",
    ".ssm.group_count",
    ".ssm.inner_size",
    ".ssm.state_size",
    ".token_shift_count",
    ".wkv.head_size",
];

pub(super) struct Metadata(HashMap<String, Value>);

enum Value {
    Number(u64),
    /// One for each layer; negative ones are 0.
    Numbers(Vec<u32>),
    Truth(bool),
    Text(String),
    /// An array of strings: where its first element begins, and how many there are.
    Texts {
        start: u64,
        count: u64,
    },
    /// Negative and fractional numbers, and arrays that are none of these.
    Other,
}

// The types of values, by their number in the format.
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const INTEGERS: [u32; 6] = [0, 2, 4, 5, 10, 11];

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

    /// What one number says of all layers, or a list of each.
    pub(super) fn per_layer(&self, key: &str) -> Option<PerLayer> {
        match self.0.get(key) {
            Some(Value::Numbers(numbers)) => Some(PerLayer::Each(numbers.clone())),
            _ => self.u32(key).map(PerLayer::All),
        }
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
        BOOL => Value::Truth(reader.bytes::<1>()?[0] != 0),
        STRING => Value::Text(reader.string(key, LONGEST_TEXT)?),
        ARRAY => {
            let (of, count) = (reader.u32()?, reader.u64()?);
            let start = reader.position();
            if INTEGERS.contains(&of) && count <= MOST_LAYERS {
                let of_layer = |_| Ok(integer(reader, of)?.and_then(|number| u32::try_from(number).ok()).unwrap_or_default());
                return (0..count).map(of_layer).collect::<Result<_>>().map(Value::Numbers);
            }
            skip_elements(reader, of, count, 0)?;
            if of == STRING { Value::Texts { start, count } } else { Value::Other }
        }
        _ => integer(reader, kind)?.map_or(Value::Other, Value::Number),
    };
    Ok(value)
}

/// `None` for a negative one, and for what is no integer, which is walked over.
fn integer<R: Read + Seek>(reader: &mut Reader<R>, kind: u32) -> Result<Option<u64>> {
    let number = match kind {
        0 => Some(u64::from(reader.bytes::<1>()?[0])),
        2 => Some(u64::from(u16::from_le_bytes(reader.bytes()?))),
        4 => Some(u64::from(reader.u32()?)),
        10 => Some(reader.u64()?),
        // Some writers use signed types for what is never negative.
        5 => u64::try_from(i32::from_le_bytes(reader.bytes()?)).ok(),
        11 => u64::try_from(i64::from_le_bytes(reader.bytes()?)).ok(),
        _ => {
            skip(reader, kind, 0)?;
            None
        }
    };
    Ok(number)
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
