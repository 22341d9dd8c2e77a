//! What `POST /v1/responses` takes, and the turn that it asks for.

use std::collections::BTreeMap;

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, Limits, OnDisconnect, ResponseFormat, SamplingParams, ToolChoice, ToolDefinition,
    response_format::{self, Format},
    tool_choice::Mode,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::items::{self, Input};

/// The body. What it does not name is left to defaults; what this stack cannot do yet is refused by name.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CreateResponse {
    pub(crate) model: String,
    pub(crate) input: Input,
    pub(crate) instructions: Option<String>,
    #[serde(default)]
    pub(crate) tools: Vec<Value>,
    pub(crate) tool_choice: Option<Value>,
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) max_tool_calls: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_logprobs: Option<u32>,
    pub(crate) text: Option<TextOptions>,
    pub(crate) reasoning: Option<Reasoning>,
    pub(crate) previous_response_id: Option<String>,
    pub(crate) store: Option<bool>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    pub(crate) truncation: Option<String>,
    pub(crate) background: Option<bool>,
    pub(crate) conversation: Option<Value>,
    pub(crate) prompt: Option<Value>,
    pub(crate) include: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct TextOptions {
    pub(crate) format: Option<TextFormat>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextFormat {
    Text,
    JsonObject,
    JsonSchema {
        name: String,
        schema: Value,
        #[serde(default)]
        strict: Option<bool>,
        #[serde(default)]
        description: Option<String>,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Reasoning {
    pub(crate) effort: Option<String>,
}

/// With it, the output text carries log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

impl CreateResponse {
    pub(crate) fn wants_stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// The turn. `session_id` and `parent_turn_id` are the caller's to fill in.
    pub(crate) fn into_turn(self) -> Result<CreateTurnRequest> {
        self.refuse_what_is_not_here()?;
        let wants_logprobs = self.include.iter().flatten().any(|name| name == LOGPROBS) || self.top_logprobs.is_some();
        let config = AgentConfig {
            model: self.model,
            instructions: self.instructions.unwrap_or_default(),
            client_tools: self.tools.into_iter().enumerate().map(function_tool).collect::<Result<_>>()?,
            tool_choice: self.tool_choice.map(tool_choice).transpose()?,
            sampling: Some(SamplingParams {
                temperature: self.temperature,
                top_p: self.top_p,
                max_tokens: self.max_output_tokens,
                ..SamplingParams::default()
            }),
            response_format: self.text.and_then(|text| text.format).and_then(response_format),
            parallel_tool_calls: self.parallel_tool_calls,
            limits: Some(Limits {
                max_tokens: self.max_output_tokens.unwrap_or_default(),
                max_tool_calls: self.max_tool_calls.unwrap_or_default(),
                ..Limits::default()
            }),
            reasoning_effort: self.reasoning.and_then(|reasoning| reasoning.effort).unwrap_or_default(),
            top_logprobs: wants_logprobs.then(|| self.top_logprobs.unwrap_or_default()),
            ..AgentConfig::default()
        };
        Ok(CreateTurnRequest {
            config: Some(config),
            input: items::messages(self.input)?,
            store: Some(self.store.unwrap_or(true)),
            metadata: self.metadata.unwrap_or_default().into_iter().collect(),
            // As OpenAI's foreground responses: who hangs up, cancels.
            on_disconnect: OnDisconnect::Cancel.into(),
            ..CreateTurnRequest::default()
        })
    }

    fn refuse_what_is_not_here(&self) -> Result<()> {
        let absent = |field: &str| Err(Error::new(Code::Unimplemented, format!("{field} is not supported yet")).with_field(field));
        if self.background == Some(true) {
            return absent("background");
        }
        if self.conversation.as_ref().is_some_and(|value| !value.is_null()) {
            return absent("conversation");
        }
        if self.prompt.as_ref().is_some_and(|value| !value.is_null()) {
            return absent("prompt");
        }
        match self.truncation.as_deref() {
            None | Some("disabled") => {}
            Some("auto") => return absent("truncation: auto"),
            Some(_) => return Err(Error::invalid("truncation", "truncation must be \"auto\" or \"disabled\"")),
        }
        if self.max_output_tokens == Some(0) {
            return Err(Error::invalid("max_output_tokens", "max_output_tokens must be at least 1"));
        }
        if self.top_logprobs.is_some_and(|count| count > 20) {
            return Err(Error::invalid("top_logprobs", "top_logprobs must be 0 to 20"));
        }
        Ok(())
    }
}

fn function_tool((index, tool): (usize, Value)) -> Result<ToolDefinition> {
    let field = format!("tools[{index}]");
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(other) => {
            let message = format!("tools of type {other:?} are not supported yet; use \"function\"");
            return Err(Error::new(Code::Unimplemented, message).with_field(format!("{field}.type")));
        }
        None => return Err(Error::invalid(format!("{field}.type"), "a tool needs a type, for example \"function\"")),
    }
    let name = tool.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Error::invalid(format!("{field}.name"), "a function tool needs a name"))?;
    let text = |key: &str| tool.get(key).and_then(Value::as_str).unwrap_or_default();
    let parameters = tool.get("parameters").filter(|schema| !schema.is_null()).map(Value::to_string).unwrap_or_default();
    let strict = tool.get("strict").and_then(Value::as_bool).unwrap_or(false);
    Ok(ToolDefinition { strict, ..ToolDefinition::new(name, text("description"), parameters) })
}

fn tool_choice(choice: Value) -> Result<ToolChoice> {
    let wrong =
        || Error::invalid("tool_choice", "tool_choice must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"name\": …}");
    let (mode, name) = match &choice {
        Value::String(mode) => match mode.as_str() {
            "none" => (Mode::None, ""),
            "auto" => (Mode::Auto, ""),
            "required" => (Mode::Required, ""),
            _ => return Err(wrong()),
        },
        Value::Object(object) if object.get("type").and_then(Value::as_str) == Some("function") => {
            (Mode::Named, object.get("name").and_then(Value::as_str).ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    };
    Ok(ToolChoice { mode: mode.into(), name: name.into(), ..ToolChoice::default() })
}

fn response_format(format: TextFormat) -> Option<ResponseFormat> {
    let format = match format {
        TextFormat::Text => return None,
        TextFormat::JsonObject => Format::JsonObject(response_format::JsonObject {}),
        TextFormat::JsonSchema { name, schema, strict, description } => Format::JsonSchema(response_format::JsonSchema {
            name,
            schema: schema.to_string(),
            strict: strict.unwrap_or(false),
            description: description.unwrap_or_default(),
        }),
    };
    Some(ResponseFormat { format: Some(format) })
}
