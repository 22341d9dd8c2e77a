//! A call's arguments against its tool's schema, before anyone runs it. What is wrong is told to the model.

use std::{collections::HashSet, fmt};

use jsonschema::Validator;
use llama_stack_proto::v1::ToolDefinition;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// Breaches told at once; a model mends a few at a time.
const MAX_BREACHES: usize = 5;
const MAX_BREACH_CHARS: usize = 300;

/// `None` for an empty schema, which takes no arguments and checks none.
///
/// # Errors
/// Why it is no schema of an object.
pub(crate) fn compile(schema: &str) -> Result<Option<Validator>, String> {
    if schema.trim().is_empty() {
        return Ok(None);
    }
    let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    if !schema.is_object() {
        return Err("it must be a JSON object".into());
    }
    jsonschema::validator_for(&schema).map(Some).map_err(|error| error.to_string())
}

/// No text at all is read as `{}`: many models write that for a tool without arguments.
///
/// # Errors
/// What to tell the model.
pub(crate) fn check(tool: &ToolDefinition, arguments: &str) -> Result<(), String> {
    let name = &tool.name;
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    let value: Value = serde_json::from_str(arguments).map_err(|error| format!("the arguments of {name} are not valid JSON: {error}"))?;
    if !value.is_object() {
        return Err(format!("the arguments of {name} must be one JSON object"));
    }
    // One reader takes the first of two, another the last: what was judged would not be what is done.
    serde_json::from_str::<Once>(arguments).map_err(|error| format!("the arguments of {name} are not clear: {error}"))?;
    // A schema that cannot be read is the provider's business: it sees the arguments and judges them.
    let Ok(Some(validator)) = compile(&tool.parameters) else { return Ok(()) };
    let breach = |error: jsonschema::ValidationError<'_>| {
        let place = error.instance_path().to_string();
        let text = if place.is_empty() { error.to_string() } else { format!("{place}: {error}") };
        text.chars().take(MAX_BREACH_CHARS).collect::<String>()
    };
    let breaches: Vec<String> = validator.iter_errors(&value).take(MAX_BREACHES).map(breach).collect();
    if breaches.is_empty() {
        return Ok(());
    }
    Err(format!("the arguments of {name} do not fit its schema: {}", breaches.join("; ")))
}

/// Any JSON in which no object has a key twice.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Once)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Once>()?;
            if keys.contains(&key) {
                return Err(de::Error::custom(format!("the key {key:?} stands twice")));
            }
            keys.insert(key);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Once>()?.is_some() {}
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_wherever_it_stands() {
        let tool = ToolDefinition::new("get", "", "");
        assert_eq!(check(&tool, r#"{"a":{"x":1},"b":[{"x":1},{"x":null}],"c":-1,"d":1.5,"e":true}"#), Ok(()));
        for arguments in [r#"{"url":"a","url":"b"}"#, r#"{"a":[{"x":1,"x":1}]}"#] {
            assert!(check(&tool, arguments).unwrap_err().contains("stands twice"), "{arguments}");
        }
    }

    #[test]
    fn the_model_is_told_what_is_wrong() {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}"#;
        let tool = ToolDefinition::new("square", "", schema);
        assert_eq!(check(&tool, r#"{"n": 3}"#), Ok(()));
        for (arguments, told) in [("{\"n\"", "not valid JSON"), ("[3]", "one JSON object"), ("", "\"n\""), ("{\"n\":\"3\"}", "/n")] {
            let error = check(&tool, arguments).unwrap_err();
            assert!(error.contains(told) && error.contains("square"), "{error}");
        }
        assert_eq!(check(&ToolDefinition::new("now", "", ""), ""), Ok(()));
    }
}
