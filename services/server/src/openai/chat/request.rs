use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ChatRequest, SamplingParams};

use super::{
    message::RequestMessage,
    tools::{self, ToolChoice, ToolEntry},
};
use crate::openai::{format::ResponseFormat, one_or_many::TextOr};

/// Unknown fields are passed over, because clients send new ones all the time; what would change the answer and is not
/// there is refused by name.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CreateChat {
    model: String,
    messages: Vec<RequestMessage>,
    tools: Option<Vec<ToolEntry>>,
    tool_choice: Option<ToolChoice>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<TextOr<String>>,
    /// The newer name of `max_tokens`, and before it.
    max_completion_tokens: Option<u32>,
    max_tokens: Option<u32>,
    /// Token id to bias.
    logit_bias: Option<BTreeMap<String, f32>>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    n: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    reasoning_effort: Option<String>,
    user: Option<String>,
    /// Not OpenAI's.
    top_k: Option<u32>,
    /// Not OpenAI's.
    min_p: Option<f32>,
    /// Not OpenAI's.
    repetition_penalty: Option<f32>,
    #[schemars(skip)]
    functions: Option<Value>,
    #[schemars(skip)]
    function_call: Option<Value>,
    #[schemars(skip)]
    audio: Option<Value>,
    #[schemars(skip)]
    modalities: Option<Vec<String>>,
    #[schemars(skip)]
    web_search_options: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(crate) struct StreamOptions {
    /// One more chunk, before the end, with the usage and no choices.
    pub(crate) include_usage: Option<bool>,
}

impl CreateChat {
    /// # Errors
    /// `InvalidArgument` for stream options without a stream.
    pub(crate) fn streams(&self) -> Result<bool> {
        let streams = self.stream.unwrap_or_default();
        if !streams && self.stream_options.is_some() {
            return Err(Error::invalid("stream_options", "stream_options is only for stream: true"));
        }
        Ok(streams)
    }

    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options.and_then(|options| options.include_usage).unwrap_or_default()
    }

    /// # Errors
    /// `InvalidArgument`, with the path of the field.
    pub(crate) fn into_proto(self) -> Result<ChatRequest> {
        self.refuse_what_is_missing()?;
        let mut names = HashMap::new();
        let messages = self.messages.into_iter().enumerate().map(|(index, message)| message.into_proto(index, &mut names));
        let definitions = self.tools.unwrap_or_default().into_iter().enumerate().map(|(index, tool)| tool.into_proto(index));
        if self.top_logprobs.is_some_and(|top| top > 0) && self.logprobs != Some(true) {
            return Err(Error::invalid("top_logprobs", "top_logprobs needs logprobs: true"));
        }
        Ok(ChatRequest {
            model: self.model,
            messages: messages.collect::<Result<_>>()?,
            tools: definitions.collect::<Result<_>>()?,
            tool_choice: self.tool_choice.map(tools::choice).transpose()?,
            response_format: self.response_format.map(ResponseFormat::into_proto).transpose()?.flatten(),
            sampling: Some(SamplingParams {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                min_p: self.min_p,
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                repetition_penalty: self.repetition_penalty,
                // Any 64 bits will do as a seed; negative ones are taken as they are.
                seed: self.seed.map(i64::cast_unsigned),
                max_tokens: self.max_completion_tokens.or(self.max_tokens),
                stop: self.stop.map(TextOr::into_list).unwrap_or_default(),
                logit_bias: logit_bias(self.logit_bias)?,
            }),
            logprobs: self.logprobs.unwrap_or_default(),
            top_logprobs: self.top_logprobs.unwrap_or_default(),
            n: choices(self.n)?,
            parallel_tool_calls: self.parallel_tool_calls,
            user: self.user.unwrap_or_default(),
            reasoning_effort: self.reasoning_effort.unwrap_or_default(),
        })
    }

    fn refuse_what_is_missing(&self) -> Result<()> {
        let refused = |field: &str, instead: &str| {
            Err(Error::invalid(field, format!("{field} is not supported; {instead}")).with_reason("unsupported_parameter"))
        };
        if self.functions.is_some() {
            return refused("functions", "use tools");
        }
        if self.function_call.is_some() {
            return refused("function_call", "use tool_choice");
        }
        if self.audio.is_some() {
            return refused("audio", "answers are text");
        }
        if self.modalities.iter().flatten().any(|modality| modality != "text") {
            return refused("modalities", "answers are text");
        }
        if self.web_search_options.is_some() {
            return refused("web_search_options", "give the model a search tool");
        }
        Ok(())
    }
}

/// In the proto 0 means 1; here it is a mistake.
pub(crate) fn choices(n: Option<u32>) -> Result<u32> {
    match n {
        Some(0) => Err(Error::invalid("n", "n must be at least 1")),
        n => Ok(n.unwrap_or(1)),
    }
}

/// JSON's keys are strings; tokens are numbers.
pub(crate) fn logit_bias(bias: Option<BTreeMap<String, f32>>) -> Result<HashMap<u32, f32>> {
    let entries = bias.unwrap_or_default().into_iter().map(|(token, bias)| match token.parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => {
            let path = format!("logit_bias.{token}");
            Err(Error::invalid(&path, format!("{path}: keys of logit_bias are token ids")))
        }
    });
    entries.collect()
}
