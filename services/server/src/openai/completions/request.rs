use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{CompleteRequest, SamplingParams, Tokens, complete_request};

use crate::openai::{
    chat::{StreamOptions, choices, logit_bias},
    format::ResponseFormat,
    one_or_many::{Inputs, Prompt, TextOr},
};

/// Prompts in one request.
const MAX_PROMPTS: usize = 64;
/// What this API generates where no limit is given.
const DEFAULT_MAX_TOKENS: u32 = 16;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CreateCompletion {
    model: String,
    /// A text, a list of texts, a list of tokens, or a list of lists of tokens.
    prompt: Inputs,
    /// Default 16.
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<TextOr<String>>,
    logit_bias: Option<BTreeMap<String, f32>>,
    /// Alternatives per token, 0 to 20.
    logprobs: Option<u32>,
    n: Option<u32>,
    /// Only as many as `n`.
    best_of: Option<u32>,
    /// The answer begins with the prompt.
    echo: Option<bool>,
    suffix: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    user: Option<String>,
    /// Not OpenAI's, here as in chat.
    response_format: Option<ResponseFormat>,
    /// Not OpenAI's.
    top_k: Option<u32>,
    /// Not OpenAI's.
    min_p: Option<f32>,
    /// Not OpenAI's.
    repetition_penalty: Option<f32>,
}

impl CreateCompletion {
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

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

    /// One request per prompt.
    ///
    /// # Errors
    /// `InvalidArgument`, with the path of the field.
    pub(crate) fn into_protos(self) -> Result<Vec<CompleteRequest>> {
        let unsupported =
            |field: &str, why: &str| Error::invalid(field, format!("{field} is not supported: {why}")).with_reason("unsupported_parameter");
        if self.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(unsupported("suffix", "texts are continued, not filled in"));
        }
        if self.best_of.is_some_and(|best_of| best_of != self.n.unwrap_or(1)) {
            return Err(unsupported("best_of", "every answer is returned; ask for n"));
        }
        let prompts = self.prompt.into_prompts().map_err(|index| {
            let path = format!("prompt[{index}]");
            Error::invalid(&path, format!("{path}: texts and tokens cannot be mixed")).with_reason("invalid_type")
        })?;
        if !(1..=MAX_PROMPTS).contains(&prompts.len()) {
            return Err(Error::invalid("prompt", format!("prompt: has {} entries; 1 to {MAX_PROMPTS} are taken", prompts.len())));
        }
        let common = CompleteRequest {
            model: self.model,
            prompt: None,
            sampling: Some(SamplingParams {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                min_p: self.min_p,
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed.map(i64::cast_unsigned),
                max_tokens: Some(self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
                stop: self.stop.map(TextOr::into_list).unwrap_or_default(),
                logit_bias: logit_bias(self.logit_bias)?,
            }),
            logprobs: self.logprobs.is_some(),
            top_logprobs: self.logprobs.unwrap_or_default(),
            n: choices(self.n)?,
            echo: self.echo.unwrap_or_default(),
            response_format: self.response_format.map(ResponseFormat::into_proto).transpose()?.flatten(),
            user: self.user.unwrap_or_default(),
        };
        let prompt = |prompt| match prompt {
            Prompt::Text(text) => complete_request::Prompt::Text(text),
            Prompt::Tokens(ids) => complete_request::Prompt::Tokens(Tokens { ids }),
        };
        Ok(prompts.into_iter().map(|one| CompleteRequest { prompt: Some(prompt(one)), ..common.clone() }).collect())
    }
}
