//! Arguments against the tool's schema, before the tool sees them.

use jsonschema::Validator;
use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::ToolDefinition;
use serde_json::Value;

/// Breaches told at once; a model mends a few at a time.
const MAX_BREACHES: usize = 5;
/// Characters of schema shown to a model that missed it.
const MAX_SCHEMA_CHARS: usize = 2_000;

/// A tool's schema, compiled.
pub(crate) struct Arguments {
    tool: String,
    schema: String,
    validator: Option<Validator>,
}

impl Arguments {
    /// # Errors
    /// `InvalidArgument` for a name outside 1 to 64 of `[a-zA-Z0-9_-]`, or parameters that are no JSON Schema of an object.
    pub(crate) fn new(definition: &ToolDefinition) -> Result<Self> {
        let name = &definition.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(Error::invalid("name", format!("tool {name:?}: a name is 1 to 64 of letters, digits, _ and -")));
        }
        let schema = definition.parameters.clone();
        let validator = if schema.is_empty() { None } else { Some(compile(name, &schema)?) };
        Ok(Self { tool: name.clone(), schema, validator })
    }

    /// `Err` holds what to tell the model: what is wrong, and what would be right.
    ///
    /// No text at all is read as `{}`: many models write that for a tool without arguments.
    pub(crate) fn check(&self, arguments: &str) -> Result<(), String> {
        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
        let value: Value = serde_json::from_str(arguments)
            .map_err(|error| self.advise(&format!("the arguments of {} are not valid JSON: {error}", self.tool)))?;
        if !value.is_object() {
            return Err(self.advise(&format!("the arguments of {} must be one JSON object", self.tool)));
        }
        let Some(validator) = &self.validator else { return Ok(()) };
        let breaches: Vec<String> = validator
            .iter_errors(&value)
            .take(MAX_BREACHES)
            .map(|error| match error.instance_path().to_string() {
                path if path.is_empty() => error.to_string(),
                path => format!("{path}: {error}"),
            })
            .collect();
        if breaches.is_empty() {
            return Ok(());
        }
        Err(self.advise(&format!("the arguments of {} do not fit its schema: {}", self.tool, breaches.join("; "))))
    }

    fn advise(&self, wrong: &str) -> String {
        if self.schema.is_empty() {
            return format!("{wrong}. {} takes no arguments: send {{}}.", self.tool);
        }
        let shown: String = self.schema.chars().take(MAX_SCHEMA_CHARS).collect();
        let cut = if shown.len() < self.schema.len() { " …" } else { "" };
        format!("{wrong}. Send one JSON object that fits this schema: {shown}{cut}")
    }
}

fn compile(tool: &str, schema: &str) -> Result<Validator> {
    let bad = |why: String| Error::invalid("parameters", format!("tool {tool:?}: the parameters are not a JSON Schema: {why}"));
    let schema: Value = serde_json::from_str(schema).map_err(|error| bad(error.to_string()))?;
    if !schema.is_object() {
        return Err(bad("it must be an object".into()));
    }
    jsonschema::validator_for(&schema).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":1}},
        "required":["city"],"additionalProperties":false}"#;

    fn arguments(schema: &str) -> Arguments {
        Arguments::new(&ToolDefinition::new("weather", "", schema)).unwrap()
    }

    #[test]
    fn what_fits_the_schema_passes() {
        assert!(arguments(SCHEMA).check(r#"{"city":"Oslo","days":3}"#).is_ok());
        assert!(arguments("").check("").is_ok());
        assert!(arguments("").check("{}").is_ok());
    }

    #[test]
    fn a_breach_names_the_field_and_shows_the_schema() {
        let told = arguments(SCHEMA).check(r#"{"days":0}"#).unwrap_err();
        assert!(told.contains("city") && told.contains("/days"), "{told}");
        assert!(told.contains("\"required\":[\"city\"]"), "{told}");
    }

    #[test]
    fn broken_json_says_where() {
        let told = arguments(SCHEMA).check(r#"{"city": "Oslo""#).unwrap_err();
        assert!(told.contains("not valid JSON") && told.contains("line 1"), "{told}");
    }

    #[test]
    fn anything_but_an_object_is_told() {
        for text in ["[]", "null", "\"Oslo\"", "3"] {
            assert!(arguments("").check(text).unwrap_err().contains("one JSON object"), "{text}");
        }
    }

    #[test]
    fn a_tool_with_a_crooked_name_or_schema_is_refused() {
        for (name, schema) in [("", ""), ("a b", ""), ("ok", "{"), ("ok", "[]"), ("ok", r#"{"type":"nonsense"}"#)] {
            assert!(Arguments::new(&ToolDefinition::new(name, "", schema)).is_err(), "{name:?} {schema:?}");
        }
    }
}
