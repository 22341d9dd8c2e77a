use schemars::JsonSchema;
use serde::Deserialize;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{CompleteRequest, Tokens, complete_request};

use crate::openai::{
    format::ResponseFormat,
    generation::generation,
    one_or_many::{Inputs, Prompt},
};

/// Prompts in one request.
const MAX_PROMPTS: usize = 64;
/// What this API generates where no limit is given.
const DEFAULT_MAX_TOKENS: u32 = 16;

generation! {
    #[derive(Debug, Deserialize, JsonSchema)]
    pub(crate) struct CreateCompletion {
        model: String,
        /// A text, a list of texts, a list of tokens, or a list of lists of tokens.
        prompt: Inputs,
        /// Default 16.
        max_tokens: Option<u32>,
        /// Alternatives per token, 0 to 20.
        logprobs: Option<u32>,
        /// Only as many as `n`.
        best_of: Option<u32>,
        /// The answer begins with the prompt.
        echo: Option<bool>,
        suffix: Option<String>,
        /// Not OpenAI's, here as in chat.
        response_format: Option<ResponseFormat>,
    }
}

impl CreateCompletion {
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// One request per prompt.
    ///
    /// # Errors
    /// `InvalidArgument`, with the path of the field.
    pub(crate) fn into_protos(mut self) -> Result<Vec<CompleteRequest>> {
        let unsupported =
            |field: &str, why: &str| Error::invalid(field, format!("{field} is not supported: {why}")).with_reason("unsupported_parameter");
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(unsupported("suffix", "texts are continued, not filled in"));
        }
        if self.best_of.is_some_and(|best_of| best_of != self.n.unwrap_or(1)) {
            return Err(unsupported("best_of", "every answer is returned; ask for n"));
        }
        let (sampling, n) = (self.sampling(Some(self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)))?, self.choices()?);
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
            sampling: Some(sampling),
            logprobs: self.logprobs.is_some(),
            top_logprobs: self.logprobs.unwrap_or_default(),
            n,
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
