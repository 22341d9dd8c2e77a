use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use llama_stack_core::{Context, Error, Result};
use llama_stack_proto::v1::ChatRequest;

use super::{
    message::RequestMessage,
    tools::{self, ToolChoice, ToolEntry},
};
use crate::{
    http::AppState,
    openai::{format::ResponseFormat, generation::generation, input_files},
};

generation! {
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
        /// The newer name of `max_tokens`, and before it.
        max_completion_tokens: Option<u32>,
        max_tokens: Option<u32>,
        logprobs: Option<bool>,
        top_logprobs: Option<u32>,
        reasoning_effort: Option<String>,
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
        // How vLLM's clients ask for what `response_format` asks for here.
        #[schemars(skip)]
        structured_outputs: Option<Value>,
        #[schemars(skip)]
        guided_json: Option<Value>,
        #[schemars(skip)]
        guided_regex: Option<Value>,
        #[schemars(skip)]
        guided_choice: Option<Value>,
        #[schemars(skip)]
        guided_grammar: Option<Value>,
    }
}

impl CreateChat {
    /// What the client calls its bound on the answer.
    pub(crate) fn limit(&self) -> &'static str {
        if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" }
    }

    /// # Errors
    /// Those of [`input_files::read`], with the path of the field.
    pub(crate) async fn read_files(&mut self, state: &AppState, cx: &Context) -> Result<()> {
        let mut room = input_files::Room::default();
        for (index, message) in self.messages.iter_mut().enumerate() {
            message.read_files(state, cx, &format!("messages[{index}]"), &mut room).await?;
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidArgument`, with the path of the field.
    pub(crate) fn into_proto(mut self) -> Result<ChatRequest> {
        self.refuse_what_is_missing()?;
        let (sampling, n) = (self.sampling(self.max_completion_tokens.or(self.max_tokens))?, self.choices()?);
        let mut names = HashMap::new();
        let messages = self.messages.into_iter().enumerate().map(|(index, message)| message.into_proto(index, &mut names));
        let definitions = self.tools.unwrap_or_default().into_iter().enumerate().map(|(index, tool)| tool.into_proto(index));
        let mut definitions: Vec<_> = definitions.collect::<Result<_>>()?;
        let tool_choice = self.tool_choice.map(|choice| tools::choice(choice, &mut definitions)).transpose()?;
        if self.top_logprobs.is_some_and(|top| top > 0) && self.logprobs != Some(true) {
            return Err(Error::invalid("top_logprobs", "top_logprobs needs logprobs: true"));
        }
        Ok(ChatRequest {
            model: self.model,
            messages: messages.collect::<Result<_>>()?,
            tools: definitions,
            tool_choice,
            response_format: self.response_format.map(ResponseFormat::into_proto).transpose()?.flatten(),
            sampling: Some(sampling),
            logprobs: self.logprobs.unwrap_or_default(),
            top_logprobs: self.top_logprobs.unwrap_or_default(),
            n,
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
        let constraints = [
            ("structured_outputs", &self.structured_outputs),
            ("guided_json", &self.guided_json),
            ("guided_regex", &self.guided_regex),
            ("guided_choice", &self.guided_choice),
            ("guided_grammar", &self.guided_grammar),
        ];
        if let Some((field, _)) = constraints.iter().find(|(_, given)| given.is_some()) {
            return refused(field, "use response_format, of type json_schema, regex or grammar");
        }
        Ok(())
    }
}
