//! `response_format`, as chat and completions take it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    self,
    response_format::{Format, JsonObject, JsonSchema as SchemaFormat},
};

/// What the answer must look like. `regex` and `grammar` are this stack's own.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ResponseFormat {
    r#type: Kind,
    json_schema: Option<NamedSchema>,
    /// With `type: regex`: an expression that matches the whole answer.
    regex: Option<String>,
    /// With `type: grammar`: a grammar in Lark syntax.
    grammar: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Text,
    JsonObject,
    JsonSchema,
    Regex,
    Grammar,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NamedSchema {
    #[serde(default)]
    name: String,
    description: Option<String>,
    schema: Option<Value>,
    strict: Option<bool>,
}

impl ResponseFormat {
    /// None for plain text.
    ///
    /// # Errors
    /// `InvalidArgument` where what the type needs is missing.
    pub(crate) fn into_proto(self) -> Result<Option<v1::ResponseFormat>> {
        let format = match self.r#type {
            Kind::Text => return Ok(None),
            Kind::JsonObject => Format::JsonObject(JsonObject {}),
            Kind::JsonSchema => {
                let named = self.json_schema.ok_or_else(|| missing("json_schema"))?;
                let schema = named.schema.ok_or_else(|| missing("json_schema.schema"))?;
                Format::JsonSchema(SchemaFormat {
                    name: named.name,
                    schema: schema.to_string(),
                    strict: named.strict.unwrap_or_default(),
                    description: named.description.unwrap_or_default(),
                })
            }
            Kind::Regex => Format::Regex(self.regex.ok_or_else(|| missing("regex"))?),
            Kind::Grammar => Format::Grammar(self.grammar.ok_or_else(|| missing("grammar"))?),
        };
        Ok(Some(v1::ResponseFormat { format: Some(format) }))
    }
}

fn missing(field: &str) -> Error {
    let path = format!("response_format.{field}");
    Error::invalid(&path, format!("{path}: missing field; this type of response_format needs it")).with_reason("missing_field")
}
