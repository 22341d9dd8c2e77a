//! What an answer must look like, as a grammar that an engine's sampler obeys.

use serde_json::{Map, Value, json};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ChatRequest, ResponseFormat, ToolDefinition, response_format::Format, tool_choice::Mode};

use crate::tool_calls;

mod compile;

pub(crate) use compile::grammar as compiled;

/// A grammar, checked: llguidance compiles it.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// A JSON Schema document; options for the engine may stand in its `x-guidance`.
    JsonSchema(Value),
    /// Matches the whole answer.
    Regex(String),
    Lark(String),
}

/// The constraint of a chat: a forced tool call before the response format, and both as alternatives where the model
/// may choose between a call and a JSON answer. None: free text.
///
/// A forced call is exactly `{"name": "<tool>", "arguments": {…}}`, with arguments that follow the tool's schema;
/// [`tool_calls::ToolCallParser`] reads it back. With a regex or grammar as its format, an answer is no tool call.
///
/// # Errors
/// As [`for_format`], and `InvalidArgument` where `tool_choice` asks for a tool that is not there, or a tool's
/// parameters are not a JSON Schema of an object.
pub fn for_chat(request: &ChatRequest) -> Result<Option<Constraint>> {
    for (index, tool) in request.tools.iter().enumerate() {
        parameters(index, tool)?;
    }
    let format = request.response_format.as_ref().map(for_format).transpose()?.flatten();
    let Some(forced) = forced(request)? else {
        let offered = tool_calls::offered(request);
        return match format {
            Some(Constraint::JsonSchema(schema)) if !offered.is_empty() => answer_or_call(&schema, offered).map(Some),
            format => Ok(format),
        };
    };
    let calls = forced.into_iter().map(|(index, tool)| call(index, tool)).collect::<Result<Vec<_>>>()?;
    lark(&calls).map(Some)
}

/// The constraint of a response format. None: text.
///
/// # Errors
/// `InvalidArgument` with the field: a schema that is no JSON Schema, or that cannot be enforced while it is `strict`
/// (what it cannot enforce of another is left out) · a regex with look-around or back-references · a grammar that
/// does not compile
pub fn for_format(format: &ResponseFormat) -> Result<Option<Constraint>> {
    let constraint = match &format.format {
        None => return Ok(None),
        Some(Format::JsonObject(_)) => Constraint::JsonSchema(with_options(json!({ "type": "object" }), false)),
        Some(Format::JsonSchema(schema)) => Constraint::JsonSchema(json_schema(&schema.schema, schema.strict)?),
        Some(Format::Regex(regex)) => Constraint::Regex(regex.clone()),
        Some(Format::Grammar(grammar)) => Constraint::Lark(grammar.clone()),
    };
    let field = match &constraint {
        Constraint::JsonSchema(_) => SCHEMA,
        Constraint::Regex(_) => "response_format.regex",
        Constraint::Lark(_) => "response_format.grammar",
    };
    compile::check(&constraint, field)?;
    Ok(Some(constraint))
}

const SCHEMA: &str = "response_format.json_schema.schema";

fn json_schema(text: &str, strict: bool) -> Result<Value> {
    let schema: Value = serde_json::from_str(text).map_err(|error| Error::invalid(SCHEMA, format!("the schema is not JSON: {error}")))?;
    compile::schema(&schema, SCHEMA, "the schema")?;
    Ok(with_options(schema, !strict))
}

/// Layout is fixed, as models write it anyway: a small model that may add white space can do so without end.
fn with_options(schema: Value, lenient: bool) -> Value {
    let mut schema = match schema {
        Value::Object(map) => map,
        // `true` allows everything, `false` nothing.
        Value::Bool(true) => Map::new(),
        other => return other,
    };
    let options = json!({ "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false, "lenient": lenient });
    schema.insert("x-guidance".into(), options);
    Value::Object(schema)
}

/// The tools of which one must be called.
fn forced(request: &ChatRequest) -> Result<Option<Vec<(usize, &ToolDefinition)>>> {
    let Some(choice) = &request.tool_choice else { return Ok(None) };
    let tools = request.tools.iter().enumerate();
    match choice.mode() {
        Mode::Required if request.tools.is_empty() => {
            Err(Error::invalid("tool_choice", "tool_choice asks for a call, and there are no tools"))
        }
        Mode::Required => Ok(Some(tools.collect())),
        Mode::Named => match tools.into_iter().find(|(_, tool)| tool.name == choice.name) {
            Some(tool) => Ok(Some(vec![tool])),
            None => Err(Error::invalid("tool_choice.name", format!("tool_choice names {:?}, which is not among the tools", choice.name))),
        },
        Mode::Unspecified | Mode::Auto | Mode::None => Ok(None),
    }
}

/// A tool's parameters, as a schema that llguidance takes: what it cannot enforce is checked when the tool is called.
fn parameters(index: usize, tool: &ToolDefinition) -> Result<Value> {
    let field = format!("tools[{index}].parameters");
    let schema: Value = match tool.parameters.trim() {
        "" => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        text => serde_json::from_str(text)
            .map_err(|error| Error::invalid(&field, format!("the parameters of tool {:?} are not JSON: {error}", tool.name)))?,
    };
    if !schema.is_object() || schema.get("type").is_some_and(|kind| kind != "object") {
        let message = format!("the parameters of tool {:?} must be a JSON Schema of an object", tool.name);
        return Err(Error::invalid(field, message));
    }
    compile::schema(&schema, &field, &format!("the parameters of tool {:?}", tool.name))?;
    Ok(with_options(schema, true))
}

/// The right side of a Lark rule for a call of `tool`. The schema is a grammar of its own there, so its `$ref`s hold.
fn call(index: usize, tool: &ToolDefinition) -> Result<String> {
    let mut schema = parameters(index, tool)?;
    // Without it any JSON value would do, where a call needs an object.
    schema["type"] = "object".into();
    let rule = rule(&tool.name, &schema);
    compile::check(&Constraint::Lark(format!("start: {rule}")), &format!("tools[{index}].parameters"))?;
    Ok(rule)
}

fn rule(name: &str, schema: &Value) -> String {
    let head = Value::from(format!("{{\"name\": {}, \"arguments\": ", Value::from(name)));
    format!("{head} %json {schema} \"}}\"")
}

/// The answer's schema or a call, as one schema: two grammars side by side would have to split the same text into the
/// same lexemes, and don't.
fn answer_or_call(answer: &Value, tools: &[ToolDefinition]) -> Result<Constraint> {
    let mut choices = vec![answer.clone()];
    for (index, tool) in tools.iter().enumerate() {
        let mut arguments = parameters(index, tool)?;
        arguments["type"] = "object".into();
        choices.push(arguments);
    }
    let (mut any, mut definitions) = (Vec::new(), Map::new());
    for (number, mut schema) in choices.into_iter().enumerate() {
        let root = format!("#/$defs/choice_{number}");
        move_references(&mut schema, &root);
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("x-guidance");
        }
        definitions.insert(format!("choice_{number}"), schema);
        any.push(match number.checked_sub(1).and_then(|tool| tools.get(tool)) {
            None => json!({ "$ref": root }),
            Some(tool) => json!({
                "type": "object",
                "properties": { "name": { "const": tool.name }, "arguments": { "$ref": root } },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            }),
        });
    }
    // What a strict answer must be was checked alone; only the tools' schemas need leniency.
    let both = Constraint::JsonSchema(with_options(json!({ "anyOf": any, "$defs": definitions }), true));
    compile::check(&both, SCHEMA)?;
    Ok(both)
}

/// Makes the references within `schema` hold when it stands at `root`.
fn move_references(schema: &mut Value, root: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, root)),
        Value::Object(map) => {
            for (key, item) in map {
                match item {
                    Value::String(reference) if key == "$ref" && (reference == "#" || reference.starts_with("#/")) => {
                        reference.replace_range(..1, root);
                    }
                    item => move_references(item, root),
                }
            }
        }
        _ => {}
    }
}

/// Any one of `rules`.
fn lark(rules: &[String]) -> Result<Constraint> {
    let names: Vec<String> = (0..rules.len()).map(|number| format!("choice_{number}")).collect();
    let mut grammar = format!("start: {}\n", names.join(" | "));
    for (name, rule) in names.iter().zip(rules) {
        grammar.push_str(&format!("{name}: {rule}\n"));
    }
    let grammar = Constraint::Lark(grammar);
    compile::check(&grammar, "tools")?;
    Ok(grammar)
}

#[cfg(test)]
mod tests;
