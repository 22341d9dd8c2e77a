//! Calls that a model wrote as JSON objects: `{"name": …, "arguments": …}`, `parameters` in place of `arguments`.

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::python;

/// The keys of a call that is written without any mark. `type` and `id` come with it in some formats.
pub(super) const KEYS: [&str; 5] = ["name", "arguments", "parameters", "type", "id"];

/// A call as it was written, declared or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenCall<'a> {
    pub(super) name: String,
    pub(super) arguments: String,
    /// The whole of it.
    pub(super) source: &'a str,
}

#[derive(Deserialize)]
struct Shape<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

/// The calls of an object or an array of objects. `strict`: without a mark, a call needs its arguments, and they
/// must be an object; else any object with a name is one.
pub(super) fn calls(text: &str, strict: bool) -> Option<Vec<WrittenCall<'_>>> {
    if text.starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        items.into_iter().map(|item| call(item.get(), strict)).collect()
    } else {
        call(text, strict).map(|call| vec![call])
    }
}

fn call(source: &str, strict: bool) -> Option<WrittenCall<'_>> {
    let shape: Shape<'_> = serde_json::from_str(source).ok()?;
    let arguments = match shape.arguments.or(shape.parameters) {
        Some(raw) => arguments(raw.get()),
        None if strict => return None,
        None => "{}".to_owned(),
    };
    if strict && serde_json::from_str::<Map<String, Value>>(&arguments).is_err() {
        return None;
    }
    Some(WrittenCall { name: shape.name, arguments, source })
}

/// As written; some models write the object into a string, which is then taken out of it.
fn arguments(raw: &str) -> String {
    if raw.starts_with('"') { serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()) } else { raw.to_owned() }
}

/// The call in a marked block that is not JSON: a Python dictionary, or broken, and then with its arguments as they
/// are, so that the model can be told.
pub(super) fn broken_call(text: &str) -> Option<(String, String)> {
    if let Some(json) = python::literal(text)
        && let Some(call) = calls(&json, false).and_then(|calls| calls.into_iter().next())
    {
        return Some((call.name, call.arguments));
    }
    let name: String = after_key(text, "name").and_then(|rest| serde_json::Deserializer::from_str(rest).into_iter().next()?.ok())?;
    let raw = after_key(text, "arguments").or_else(|| after_key(text, "parameters")).unwrap_or_default().trim();
    // The last brace is the call's own where the arguments do not need it.
    let surplus = raw.matches('}').count() > raw.matches('{').count();
    let raw = if surplus { raw.strip_suffix('}').unwrap_or(raw).trim_end() } else { raw };
    Some((name, if raw.is_empty() { "{}".to_owned() } else { raw.to_owned() }))
}

/// What follows `"key":`.
fn after_key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let at = text.find(&quoted)? + quoted.len();
    text[at..].trim_start().strip_prefix(':').map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, strict: bool) -> Option<Vec<(String, String)>> {
        calls(text, strict).map(|calls| calls.into_iter().map(|call| (call.name, call.arguments)).collect())
    }

    #[test]
    fn arguments_stay_as_they_were_written() {
        let call = |arguments: &str| Some(vec![("f".to_owned(), arguments.to_owned())]);
        assert_eq!(read(r#"{"type": "function", "name": "f", "parameters": {"a" : 1.50}}"#, true), call(r#"{"a" : 1.50}"#));
        assert_eq!(read(r#"{"name": "f", "arguments": "{\"a\": 1}"}"#, true), call(r#"{"a": 1}"#));
        assert_eq!(read(r#"{"name": "f"}"#, false), call("{}"));
        assert_eq!(read(r#"{"name": "f"}"#, true), None);
        assert_eq!(read(r#"{"name": "f", "arguments": 5}"#, true), None);
    }

    #[test]
    fn broken_arguments_are_kept_for_the_model_to_see() {
        let broken = |text: &str| broken_call(text).map(|(name, arguments)| format!("{name} {arguments}"));
        assert_eq!(broken(r#"{"name": "f", "arguments": {"a": oops}}"#).as_deref(), Some(r#"f {"a": oops}"#));
        assert_eq!(broken(r#"{"name": "f", "arguments": {"a": "cut o"#).as_deref(), Some(r#"f {"a": "cut o"#));
        assert_eq!(broken("{'name': 'f', 'arguments': {'a': True}}").as_deref(), Some(r#"f {"a": true}"#));
        assert_eq!(broken("{oops}"), None);
    }
}
