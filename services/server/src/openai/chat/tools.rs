//! Tools and the choice between them.

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{self, ToolDefinition, tool_choice::Mode};

/// A tool: `{"type": "function", "function": {…}}`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ToolEntry {
    r#type: String,
    function: Option<Function>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Function {
    name: String,
    #[serde(default)]
    description: Option<String>,
    /// JSON Schema of the arguments.
    parameters: Option<Value>,
    strict: Option<bool>,
}

impl ToolEntry {
    fn name(&self) -> &str {
        self.function.as_ref().map(|function| function.name.as_str()).unwrap_or_default()
    }

    pub(super) fn into_proto(self, index: usize) -> Result<ToolDefinition> {
        let path = format!("tools[{index}]");
        if self.r#type != "function" {
            let message = format!("{path}.type: {:?} is not supported; tools are of type \"function\"", self.r#type);
            return Err(Error::invalid(format!("{path}.type"), message).with_reason("unsupported_parameter"));
        }
        let missing = || Error::invalid(format!("{path}.function"), format!("{path}.function: missing field")).with_reason("missing_field");
        let function = self.function.ok_or_else(missing)?;
        let parameters = match function.parameters {
            None | Some(Value::Null) => String::new(),
            Some(schema @ Value::Object(_)) => schema.to_string(),
            Some(_) => {
                let field = format!("{path}.function.parameters");
                return Err(Error::invalid(&field, format!("{field}: must be a JSON Schema, an object")).with_reason("invalid_type"));
            }
        };
        let definition = ToolDefinition::new(function.name, function.description.unwrap_or_default(), parameters);
        Ok(ToolDefinition { strict: function.strict.unwrap_or_default(), ..definition })
    }
}

/// `none`, `auto`, `required`, `{"type": "function", "function": {"name": …}}`, or
/// `{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}`.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ToolChoice {
    Mode(String),
    Named(Named),
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Named {
    r#type: String,
    function: Option<NamedFunction>,
    allowed_tools: Option<AllowedTools>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct AllowedTools {
    /// `auto` or `required`.
    mode: String,
    tools: Vec<ToolEntry>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NamedFunction {
    name: String,
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an object")
            }

            fn visit_str<E: de::Error>(self, mode: &str) -> Result<ToolChoice, E> {
                Ok(ToolChoice::Mode(mode.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                Named::deserialize(MapAccessDeserializer::new(map)).map(ToolChoice::Named)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The choice. Where it allows some of the tools only, the others are taken out of `tools`: what a model is not shown it
/// cannot call, whichever engine runs it.
///
/// # Errors
/// `InvalidArgument` for what is no choice, or names a tool that is not among `tools`.
pub(super) fn choice(choice: ToolChoice, tools: &mut Vec<ToolDefinition>) -> Result<v1::ToolChoice> {
    let (mode, name) = match choice {
        ToolChoice::Named(Named { r#type, allowed_tools: Some(allowed), .. }) if r#type == "allowed_tools" => {
            (allow(&allowed, tools)?, String::new())
        }
        ToolChoice::Named(Named { r#type, .. }) if r#type == "allowed_tools" => {
            let field = "tool_choice.allowed_tools";
            return Err(Error::invalid(field, format!("{field}: missing field")).with_reason("missing_field"));
        }
        ToolChoice::Mode(mode) => match mode.as_str() {
            "none" => (Mode::None, String::new()),
            "auto" => (Mode::Auto, String::new()),
            "required" => (Mode::Required, String::new()),
            _ => {
                return Err(Error::invalid("tool_choice", format!("tool_choice: {mode:?} is none of \"none\", \"auto\" and \"required\"")));
            }
        },
        ToolChoice::Named(Named { r#type, function: Some(function), .. }) if r#type == "function" => (Mode::Named, function.name),
        ToolChoice::Named(Named { r#type, function: None, .. }) if r#type == "function" => {
            return Err(Error::invalid("tool_choice.function", "tool_choice.function: missing field").with_reason("missing_field"));
        }
        ToolChoice::Named(Named { r#type, .. }) => {
            return Err(Error::invalid(
                "tool_choice.type",
                format!("tool_choice.type: {type:?} is not supported; it must be \"function\" or \"allowed_tools\"", type = r#type),
            )
            .with_reason("unsupported_parameter"));
        }
    };
    Ok(v1::ToolChoice { mode: mode.into(), name, ..v1::ToolChoice::default() })
}

fn allow(allowed: &AllowedTools, tools: &mut Vec<ToolDefinition>) -> Result<Mode> {
    let mode = match allowed.mode.as_str() {
        "auto" => Mode::Auto,
        "required" => Mode::Required,
        other => {
            let message = format!("tool_choice.allowed_tools.mode: {other:?} is none of \"auto\" and \"required\"");
            return Err(Error::invalid("tool_choice.allowed_tools.mode", message));
        }
    };
    for (index, entry) in allowed.tools.iter().enumerate() {
        if !tools.iter().any(|tool| tool.name == entry.name()) {
            let field = format!("tool_choice.allowed_tools.tools[{index}]");
            return Err(Error::invalid(&field, format!("{field}: {:?} is none of the request's tools", entry.name())));
        }
    }
    if allowed.tools.is_empty() {
        return Err(Error::invalid("tool_choice.allowed_tools.tools", "tool_choice.allowed_tools.tools must name at least one tool"));
    }
    tools.retain(|tool| allowed.tools.iter().any(|entry| entry.name() == tool.name));
    Ok(mode)
}
