//! Checks before an engine sees anything: JSON Schemas by `jsonschema`, grammars by llguidance.

use llguidance::{
    api::{GrammarInit, ParserLimits, TopLevelGrammar},
    panic_utils,
};
use serde_json::Value;

use llama_stack_core::{Error, Result};

use super::Constraint;

/// Longest grammar, schema or regular expression, in bytes. Compiling takes time in proportion.
const LONGEST: usize = 256 << 10;

/// That `schema` is a JSON Schema, all of whose references lead somewhere inside of it. Nothing is fetched.
///
/// # Errors
/// `InvalidArgument` for `field`; `what` is the schema's name in the sentence.
pub(super) fn schema(schema: &Value, field: &str, what: &str) -> Result<()> {
    match jsonschema::options().offline().build(schema) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::invalid(field, format!("{what} is not a valid JSON Schema: {error}")).with_reason("invalid_schema")),
    }
}

/// That llguidance compiles `constraint`.
///
/// # Errors
/// `InvalidArgument` for `field`, with the compiler's words.
pub(super) fn check(constraint: &Constraint, field: &str) -> Result<()> {
    let (what, length) = match constraint {
        Constraint::JsonSchema(schema) => ("this JSON Schema", schema.to_string().len()),
        Constraint::Regex(regex) => ("this regular expression", regex.len()),
        Constraint::Lark(lark) => ("this grammar", lark.len()),
    };
    if length > LONGEST {
        return Err(Error::invalid(field, format!("{what} is {length} bytes long; at most {LONGEST} can be enforced")));
    }
    // The compiler has assertions of its own; whatever it meets is a fault of the grammar, not of this process.
    let compiled = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
        GrammarInit::Serialized(grammar(constraint)).to_internal(None, ParserLimits::default()).map(drop)
    }));
    compiled.map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        Error::invalid(field, format!("{what} cannot be enforced: {first}")).with_reason("invalid_grammar").with_source(text.clone())
    })
}

/// As llguidance takes it.
pub(crate) fn grammar(constraint: &Constraint) -> TopLevelGrammar {
    match constraint {
        Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(schema.clone()),
        Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Constraint::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
    }
}
