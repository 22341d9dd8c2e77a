//! A call's arguments against its tool's schema, before anyone runs it. What is wrong is told to the model.

use jsonschema::Validator;
use llama_stack_proto::v1::ToolDefinition;
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

#[cfg(test)]
mod tests {
    use super::*;

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
