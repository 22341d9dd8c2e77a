//! Attributes of documents and chunks, as JSON has them.

use std::collections::HashMap;

use llama_stack_proto::v1::{Value, value::Value as Of};
use serde_json::{Map, Value as Json};

use crate::{Error, Result};

/// The largest number below which every whole number is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Attributes as a JSON object. Whole numbers are written without a fraction.
pub fn to_json(attributes: &HashMap<String, Value>) -> Map<String, Json> {
    attributes.iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect()
}

pub fn value_to_json(value: &Value) -> Json {
    match &value.value {
        Some(Of::Text(text)) => text.clone().into(),
        Some(Of::Boolean(boolean)) => (*boolean).into(),
        Some(Of::Number(number)) => {
            let whole = number.fract() == 0.0 && number.abs() < EXACT;
            let whole = if whole { format!("{number:.0}").parse::<i64>().ok() } else { None };
            whole.map_or_else(|| (*number).into(), Json::from)
        }
        None => Json::Null,
    }
}

/// A JSON object as attributes; what is null is left out.
///
/// # Errors
/// `InvalidArgument` for a value that a filter could not compare: a list or an object. `field` is the object's path.
pub fn from_json(field: &str, object: &Map<String, Json>) -> Result<HashMap<String, Value>> {
    let given = object.iter().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| Ok((name.clone(), value_from_json(&format!("{field}.{name}"), value)?))).collect()
}

/// # Errors
/// `InvalidArgument` for what is no text, number or truth value.
pub fn value_from_json(field: &str, value: &Json) -> Result<Value> {
    let of = match value {
        Json::String(text) => Of::Text(text.clone()),
        Json::Bool(boolean) => Of::Boolean(*boolean),
        Json::Number(number) => Of::Number(number.as_f64().unwrap_or_default()),
        Json::Null | Json::Array(_) | Json::Object(_) => {
            return Err(Error::invalid(field, format!("{field} must be a text, a number, true or false")));
        }
    };
    Ok(Value { value: Some(of) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attributes_come_back_as_they_went() {
        let given = json!({ "a": "x", "b": 5, "c": -0.5, "d": true, "e": 1e300, "f": 0 });
        let attributes = from_json("attributes", given.as_object().unwrap()).unwrap();
        assert_eq!(Json::Object(to_json(&attributes)), given);
    }

    #[test]
    fn what_cannot_be_compared_is_refused_by_its_path() {
        for value in [json!([1]), json!({})] {
            let error = from_json("attributes", json!({ "a": value }).as_object().unwrap()).unwrap_err();
            assert_eq!(error.field(), Some("attributes.a"));
        }
        assert!(from_json("attributes", json!({ "a": null }).as_object().unwrap()).unwrap().is_empty());
    }
}
