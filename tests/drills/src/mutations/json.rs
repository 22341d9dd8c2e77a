//! JSON that is nearly right: values out of schemas, and changes of them.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

/// Words for strings that a schema leaves open. Ids of what there is are among them: see [`super::Known`].
pub(super) struct Words<'a> {
    pub(super) known: &'a super::Known,
}

/// A value that a schema of the OpenAPI document allows, more or less.
pub(super) fn sample(document: &Value, schema: &Value, name: &str, words: &Words<'_>, chance: &mut StdRng, depth: usize) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null);
        return if depth > 12 { Value::Null } else { sample(document, target, name, words, chance, depth + 1) };
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(schema) = schema[choice].as_array().and_then(|among| among.choose(chance)) {
            return sample(document, schema, name, words, chance, depth + 1);
        }
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(value) = schema["enum"].as_array().and_then(|among| among.choose(chance)) {
        return value.clone();
    }
    if let Some(value) = schema.get("default").filter(|_| chance.random_bool(0.3)) {
        return value.clone();
    }
    let kind: &str = match &schema["type"] {
        Value::Array(kinds) => kinds.choose(chance).and_then(Value::as_str).unwrap_or("null"),
        Value::String(kind) => kind,
        _ if schema["properties"].is_object() => "object",
        _ => ["string", "integer", "object", "array"].choose(chance).unwrap_or(&"string"),
    };
    match kind {
        "object" => object(document, schema, words, chance, depth),
        "array" => {
            let count = if depth > 8 { 0 } else { chance.random_range(0..3) };
            (0..count).map(|_| sample(document, &schema["items"], name, words, chance, depth + 1)).collect()
        }
        "integer" => {
            let (low, high) = (schema["minimum"].as_i64().unwrap_or(0), schema["maximum"].as_i64().unwrap_or(100));
            chance.random_range(low..=high.max(low)).into()
        }
        "number" => chance.random_range(0.0..1.0).into(),
        "boolean" => chance.random_bool(0.5).into(),
        "string" => words.known.word(name, chance).into(),
        _ => Value::Null,
    }
}

fn object(document: &Value, schema: &Value, words: &Words<'_>, chance: &mut StdRng, depth: usize) -> Value {
    let mut made = Map::new();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let wanted = required.contains(&name.as_str()) || (depth < 6 && chance.random_bool(0.25));
        if wanted {
            made.insert(name.clone(), sample(document, inner, name, words, chance, depth + 1));
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        for part in parts {
            if let Value::Object(more) = sample(document, part, "", words, chance, depth + 1) {
                made.extend(more);
            }
        }
    }
    made.into()
}

/// What stands where something else should.
fn odd(chance: &mut StdRng) -> Value {
    match chance.random_range(0..20) {
        0 => Value::Null,
        1 => true.into(),
        2 => (-1).into(),
        3 => 0.into(),
        4 => i64::MIN.into(),
        5 => u64::MAX.into(),
        6 => (1_u64 << 53).into(),
        7 => (u64::from(u32::MAX) + 1).into(),
        8 => 1e308.into(),
        9 => 0.5.into(),
        10 => "".into(),
        11 => "\0".into(),
        12 => "x".repeat(20_000).into(),
        13 => "\u{202E}e\u{301}\u{FEFF}🦀\u{200D}\u{FFFF}".into(),
        14 => "../../etc/passwd\r\nx-header: 1".into(),
        15 => (0..200).fold(json!(1), |inner, _| json!([inner])),
        16 => json!({}),
        17 => json!([]),
        18 => (0..300).map(Value::from).collect(),
        _ => (0..100).fold(json!({}), |inner, _| json!({ "filters": [inner], "type": "and" })),
    }
}

/// Changes something somewhere.
pub(super) fn change(value: &mut Value, chance: &mut StdRng) {
    let count = match value {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    // Down, mostly; else here.
    if count > 0 && chance.random_bool(0.75) {
        let at = chance.random_range(0..count);
        let inner = match value {
            Value::Object(map) => map.values_mut().nth(at),
            Value::Array(items) => items.get_mut(at),
            _ => None,
        };
        return inner.map_or((), |inner| change(inner, chance));
    }
    match value {
        Value::Object(map) if !map.is_empty() && chance.random_bool(0.5) => {
            let key = map.keys().nth(chance.random_range(0..map.len())).cloned().unwrap_or_default();
            match chance.random_range(0..3) {
                0 => drop(map.remove(&key)),
                1 => {
                    let value = map.remove(&key).unwrap_or_default();
                    map.insert(format!("{key}s"), value);
                }
                _ => drop(map.insert("surprise".into(), odd(chance))),
            }
        }
        Value::Array(items) if chance.random_bool(0.3) => {
            let copies = chance.random_range(0..200);
            let one = items.first().cloned().unwrap_or_else(|| odd(chance));
            items.extend(std::iter::repeat_n(one, copies));
        }
        other => match chance.random_range(0..6) {
            0 => *other = json!([other.clone()]),
            1 => *other = json!({ "value": other.clone() }),
            2 => *other = other.to_string().into(),
            _ => *other = odd(chance),
        },
    }
}

/// Changes of the text itself, which no value can say.
pub(super) fn spoil(text: Vec<u8>, chance: &mut StdRng) -> Vec<u8> {
    let mut text = text;
    let at = chance.random_range(0..=text.len());
    match chance.random_range(0..9) {
        0 => text.truncate(at),
        1 => drop(text.splice(at..at, [0xff, 0xc0, 0x80])),
        2 => drop(text.splice(at..at, *b"\\ud800")),
        3 if text.first() == Some(&b'{') => drop(text.splice(1..1, *b"\"model\":1,\"model\":[],")),
        4 => text = "[".repeat(100_000).into_bytes(),
        5 => text = "{\"a\":".repeat(20_000).into_bytes(),
        6 => text.extend_from_slice(b" trailing"),
        7 => drop(text.splice(0..0, *b"\xEF\xBB\xBF")),
        _ => {
            if let Some(byte) = text.get_mut(at) {
                *byte = chance.random();
            }
        }
    }
    text
}
