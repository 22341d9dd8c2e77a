//! What `POST /v1/responses` takes, and the turn that it asks for.

use std::collections::BTreeMap;

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, HistoryTruncation, Limits, OnDisconnect, ResponseFormat, SamplingParams,
    response_format::{self, Format},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    echo::Echo,
    guardrails::{self, Moderation},
    input::{self, Given, Input},
    steps::WEB_SEARCH,
    tools,
};
use crate::openai::prompts::PromptReference;

/// The body. What it does not name is left to defaults; what this stack cannot do yet is refused by name. Other fields are
/// passed over, because clients send new ones all the time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CreateResponse {
    /// Required, but with an `agent_id`.
    pub(crate) model: Option<String>,
    pub(crate) input: Option<Input>,
    pub(crate) instructions: Option<String>,
    pub(crate) tools: Option<Vec<Value>>,
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
    /// An id, or `{id}`.
    pub(crate) conversation: Option<Value>,
    pub(crate) store: Option<bool>,
    pub(crate) stream: Option<bool>,
    pub(crate) background: Option<bool>,
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// `auto` or `disabled`.
    pub(crate) truncation: Option<String>,
    pub(crate) context_management: Option<Vec<ContextManagement>>,
    pub(crate) prompt: Option<PromptReference>,
    pub(crate) include: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) safety_identifier: Option<String>,
    pub(crate) service_tier: Option<String>,
    pub(crate) prompt_cache_key: Option<String>,
    /// Not OpenAI's: shields. Ids, for the input and for the answer, or `{id, stages}`.
    pub(crate) guardrails: Option<Vec<Value>>,
    /// Not OpenAI's: when the words of the answer are shown that guardrails judge.
    pub(crate) moderation: Option<Moderation>,
    /// Not OpenAI's: bounds on the turn.
    pub(crate) limits: Option<LimitOptions>,
    /// Not OpenAI's: an agent of this stack, in place of all that configures one.
    pub(crate) agent_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct TextOptions {
    pub(crate) format: Option<TextFormat>,
    /// Said again in the response; no model here reads it.
    pub(crate) verbosity: Option<String>,
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
    /// Said again in the response: thinking is shown as it is, not summarised.
    pub(crate) summary: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ContextManagement {
    /// `compaction`
    pub(crate) r#type: String,
    /// Tokens of history above which it is summarised.
    pub(crate) compact_threshold: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitOptions {
    pub(crate) max_steps: Option<u32>,
    pub(crate) max_seconds: Option<u32>,
    pub(crate) max_tool_calls: Option<u32>,
    pub(crate) max_cost: Option<f64>,
    pub(crate) max_depth: Option<u32>,
}

/// With it, the output text carries log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";
/// With it, searches of files show what they found.
pub(crate) const FILE_SEARCH_RESULTS: &str = "file_search_call.results";
/// With it, searches of the web show the pages that they found.
pub(crate) const WEB_SEARCH_SOURCES: &str = "web_search_call.action.sources";
/// What may be asked for; all but these three are given anyway, or are of tools that are not here.
const INCLUDABLE: [&str; 8] = [
    LOGPROBS,
    FILE_SEARCH_RESULTS,
    "web_search_call.results",
    WEB_SEARCH_SOURCES,
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
];

impl CreateResponse {
    pub(crate) fn wants_stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn in_background(&self) -> bool {
        self.background.unwrap_or(false)
    }

    /// The turn. `session_id`, `parent_turn_id` and `prompt` are the caller's to fill in.
    ///
    /// # Errors
    /// `InvalidArgument`, with the path of the field · `Unimplemented` for what this stack does not have.
    pub(crate) fn into_turn(self) -> Result<CreateTurnRequest> {
        self.check()?;
        let background = self.in_background();
        let (store, agent_id) = (self.store, self.agent_id.clone().unwrap_or_default());
        let metadata = self.metadata.clone().unwrap_or_default().into_iter().collect();
        let mut request = self;
        let given = request.input.take().map(input::read).transpose()?;
        let Given { messages, decisions } = given.ok_or_else(|| Error::invalid("input", "input: missing field"))?;
        let config = if agent_id.is_empty() {
            Some(request.into_config()?)
        } else {
            request.guardrails.as_deref().map(guardrails::beside_agent).transpose()?
        };
        // As OpenAI's foreground responses: who hangs up, cancels.
        let on_disconnect = if background { OnDisconnect::Continue } else { OnDisconnect::Cancel };
        Ok(CreateTurnRequest {
            config,
            agent_id,
            input: messages,
            decisions,
            store: Some(store.unwrap_or(true)),
            metadata,
            background,
            on_disconnect: on_disconnect.into(),
            ..CreateTurnRequest::default()
        })
    }

    fn into_config(self) -> Result<AgentConfig> {
        let model = self.model.clone().ok_or_else(|| Error::invalid("model", "model: missing field").with_reason("missing_field"))?;
        let tools = tools::read(self.tools.as_deref().unwrap_or_default())?;
        let tool_choice = self.tool_choice.as_ref().filter(|choice| !choice.is_null());
        let tool_choice = tool_choice.map(|choice| tools::choice(choice, &tools)).transpose()?;
        let shields = guardrails::read(self.guardrails.as_deref().unwrap_or_default())?;
        let output_moderation = self.moderation.as_ref().map(guardrails::moderation).transpose()?;
        let wants_logprobs = self.include.iter().flatten().any(|name| name == LOGPROBS) || self.top_logprobs.is_some();
        let limits = self.limits.as_ref();
        let limit = |own: fn(&LimitOptions) -> Option<u32>| limits.and_then(own).unwrap_or_default();
        Ok(AgentConfig {
            metadata: Echo::of(&self, tools.web_search.clone(), tools.namespaces).keep()?,
            model,
            tools: tools.web_search.iter().map(|_| WEB_SEARCH.to_owned()).collect(),
            client_tools: tools.functions,
            mcp_servers: tools.servers,
            file_search: tools.file_search,
            tool_choice,
            sampling: Some(SamplingParams {
                temperature: self.temperature,
                top_p: self.top_p,
                max_tokens: self.max_output_tokens,
                ..SamplingParams::default()
            }),
            limits: Some(Limits {
                max_tokens: self.max_output_tokens.unwrap_or_default(),
                max_tool_calls: self.max_tool_calls.unwrap_or_else(|| limit(|limits| limits.max_tool_calls)),
                max_steps: limit(|limits| limits.max_steps),
                max_seconds: limit(|limits| limits.max_seconds),
                max_cost: limits.and_then(|limits| limits.max_cost).unwrap_or_default(),
                max_depth: limit(|limits| limits.max_depth),
            }),
            truncation: truncation(self.truncation.as_deref())?.into(),
            compact_threshold: compact_threshold(self.context_management.as_deref().unwrap_or_default())?,
            input_shields: shields.input,
            tool_argument_shields: shields.tool_arguments,
            tool_result_shields: shields.tool_results,
            retrieved_shields: shields.retrieved,
            output_shields: shields.output,
            output_moderation,
            instructions: self.instructions.unwrap_or_default(),
            response_format: self.text.and_then(|text| text.format).and_then(response_format),
            parallel_tool_calls: self.parallel_tool_calls,
            reasoning_effort: self.reasoning.and_then(|reasoning| reasoning.effort).unwrap_or_default(),
            top_logprobs: wants_logprobs.then(|| self.top_logprobs.unwrap_or_default()),
            ..AgentConfig::default()
        })
    }

    /// What can be said of the fields without looking anything up.
    ///
    /// # Errors
    /// `InvalidArgument`, with the path of the field.
    pub(crate) fn check(&self) -> Result<()> {
        if self.in_background() && self.store == Some(false) {
            return Err(Error::invalid("store", "a background response must be stored, or nobody could read it: leave store out"));
        }
        if self.max_output_tokens == Some(0) {
            return Err(Error::invalid("max_output_tokens", "max_output_tokens must be at least 1"));
        }
        // In the contract 0 is no bound; here it would be taken for none allowed.
        if self.max_tool_calls == Some(0) {
            return Err(Error::invalid("max_tool_calls", "max_tool_calls must be at least 1; for no calls say tool_choice: \"none\""));
        }
        if self.top_logprobs.is_some_and(|count| count > 20) {
            return Err(Error::invalid("top_logprobs", "top_logprobs must be 0 to 20"));
        }
        if let Some((index, name)) = self.include.iter().flatten().enumerate().find(|(_, name)| !INCLUDABLE.contains(&name.as_str())) {
            let message = format!("{name:?} cannot be included; what can is: {}", INCLUDABLE.join(", "));
            return Err(Error::invalid(format!("include[{index}]"), message));
        }
        if self.limits.as_ref().and_then(|limits| limits.max_cost).is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
            return Err(Error::invalid("limits.max_cost", "limits.max_cost must be 0 or more"));
        }
        if self.agent_id.is_some() {
            return self.check_agent();
        }
        Ok(())
    }

    /// An agent is configured already; guardrails are added to its own. Only `model` is passed over: there are clients that
    /// cannot leave it out.
    fn check_agent(&self) -> Result<()> {
        let configured = [
            ("instructions", self.instructions.is_some()),
            ("tools", self.tools.is_some()),
            ("tool_choice", self.tool_choice.is_some()),
            ("parallel_tool_calls", self.parallel_tool_calls.is_some()),
            ("max_output_tokens", self.max_output_tokens.is_some()),
            ("max_tool_calls", self.max_tool_calls.is_some()),
            ("temperature", self.temperature.is_some()),
            ("top_p", self.top_p.is_some()),
            ("top_logprobs", self.top_logprobs.is_some()),
            ("text", self.text.is_some()),
            ("reasoning", self.reasoning.is_some()),
            ("truncation", self.truncation.is_some()),
            ("context_management", self.context_management.is_some()),
            ("prompt", self.prompt.is_some()),
            ("moderation", self.moderation.is_some()),
            ("limits", self.limits.is_some()),
        ];
        match configured.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((field, _)) => Err(Error::invalid(*field, format!("{field} is a part of the agent: leave it out, or leave agent_id out"))),
        }
    }
}

pub(crate) fn truncation(truncation: Option<&str>) -> Result<HistoryTruncation> {
    match truncation {
        None | Some("disabled") => Ok(HistoryTruncation::Disabled),
        Some("auto") => Ok(HistoryTruncation::Auto),
        Some(_) => Err(Error::invalid("truncation", "truncation must be \"auto\" or \"disabled\"")),
    }
}

fn compact_threshold(managements: &[ContextManagement]) -> Result<u32> {
    let mut threshold = 0;
    for (index, management) in managements.iter().enumerate() {
        if management.r#type != "compaction" {
            let message = format!("context management of type {:?} is not supported; use \"compaction\"", management.r#type);
            return Err(Error::new(Code::Unimplemented, message).with_field(format!("context_management[{index}].type")));
        }
        let field = format!("context_management[{index}].compact_threshold");
        let missing = || Error::invalid(&field, "compact_threshold is required: how many tokens of history there may be");
        threshold = management.compact_threshold.filter(|tokens| *tokens > 0).ok_or_else(missing)?;
    }
    Ok(threshold)
}

pub(crate) fn response_format(format: TextFormat) -> Option<ResponseFormat> {
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
