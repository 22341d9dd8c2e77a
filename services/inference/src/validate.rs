//! What every provider may rely on: requests are checked here once, and the message says what was wrong and what would be right.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    ChatRequest, ClassifyRequest, CompleteRequest, EmbedRequest, ResponseFormat, TokenizeRequest, complete_request::Prompt, embed_input,
    response_format::Format,
};

mod messages;
mod sampling;
mod schemas;
mod tools;

use schemas::Schemas;

/// Most inputs of one Embed, Rerank or Classify.
const MAX_INPUTS: usize = 2_048;
pub(crate) const MAX_CHOICES: u32 = 16;
const MAX_TOP_LOGPROBS: u32 = 20;

/// The rules of the inference API. Keeps the schemas that it has seen to be valid.
#[derive(Default)]
pub(crate) struct Validator {
    schemas: Schemas,
}

impl Validator {
    /// # Errors
    /// `InvalidArgument` that names the field; so do all others here.
    pub(crate) fn chat(&self, request: &ChatRequest) -> Result<()> {
        model(&request.model)?;
        messages::check(&request.messages)?;
        tools::check(&request.tools, request.tool_choice.as_ref(), &self.schemas)?;
        self.format(request.response_format.as_ref())?;
        sampling::check(request.sampling.as_ref(), 1)?;
        logprobs(request.logprobs, request.top_logprobs)?;
        choices(request.n)?;
        reasoning_effort(&request.reasoning_effort)
    }

    pub(crate) fn complete(&self, request: &CompleteRequest) -> Result<()> {
        model(&request.model)?;
        match &request.prompt {
            None => return Err(Error::invalid("prompt", "prompt is missing: give a text or tokens")),
            Some(Prompt::Tokens(tokens)) if tokens.ids.is_empty() => {
                return Err(Error::invalid("tokens.ids", "prompt has 0 tokens; it must have at least 1"));
            }
            Some(_) => {}
        }
        self.format(request.response_format.as_ref())?;
        // The prompt alone, with its scores.
        sampling::check(request.sampling.as_ref(), u32::from(!request.echo))?;
        logprobs(request.logprobs, request.top_logprobs)?;
        choices(request.n)
    }

    fn format(&self, format: Option<&ResponseFormat>) -> Result<()> {
        const REGEX: &str = "response_format.regex";
        const GRAMMAR: &str = "response_format.grammar";
        match format.and_then(|format| format.format.as_ref()) {
            Some(Format::JsonSchema(schema)) => self.schemas.check(|| "response_format.json_schema.schema".into(), &schema.schema),
            Some(Format::Regex(regex)) if regex.is_empty() => Err(Error::invalid(REGEX, "the regular expression is empty")),
            Some(Format::Grammar(grammar)) if grammar.trim().is_empty() => Err(Error::invalid(GRAMMAR, "the grammar is empty")),
            Some(_) => Ok(()),
            None if format.is_some() => {
                let needs = "response_format is empty; it must be json_object, json_schema, regex or grammar, or be left out for text";
                Err(Error::invalid("response_format", needs))
            }
            None => Ok(()),
        }
    }
}

pub(crate) fn embed(request: &EmbedRequest) -> Result<()> {
    use embed_input::Input;
    model(&request.model)?;
    count("inputs", request.inputs.len())?;
    for (index, input) in request.inputs.iter().enumerate() {
        let what = match &input.input {
            Some(Input::Text(text)) if !text.is_empty() => continue,
            Some(Input::Tokens(tokens)) if !tokens.ids.is_empty() => continue,
            Some(Input::Text(_)) => "is an empty text",
            Some(Input::Tokens(_)) => "has 0 tokens",
            None => "holds neither a text nor tokens",
        };
        return Err(Error::invalid(format!("inputs[{index}]"), format!("inputs[{index}] {what}; there is nothing to embed")));
    }
    Ok(())
}

pub(crate) fn rerank(request: &llama_stack_proto::v1::RerankRequest) -> Result<()> {
    model(&request.model)?;
    if request.query.is_empty() {
        return Err(Error::invalid("query", "query is empty; it must be the text that documents are ranked for"));
    }
    count("documents", request.documents.len())
}

pub(crate) fn classify(request: &ClassifyRequest) -> Result<()> {
    model(&request.model)?;
    count("inputs", request.inputs.len())
}

pub(crate) fn tokenize(request: &TokenizeRequest) -> Result<()> {
    model(&request.model)?;
    if !request.text.is_empty() && !request.messages.is_empty() {
        return Err(Error::invalid("messages", "text and messages are both given; tokenize reads one of them"));
    }
    if request.messages.is_empty() { Ok(()) } else { messages::check(&request.messages) }
}

fn model(id: &str) -> Result<()> {
    if id.is_empty() { Err(Error::invalid("model", "model is empty; it must be the id of a model, see ListModels")) } else { Ok(()) }
}

fn count(field: &str, there: usize) -> Result<()> {
    if (1..=MAX_INPUTS).contains(&there) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{field} has {there} items; it must have 1 to {MAX_INPUTS}")))
}

fn choices(n: u32) -> Result<()> {
    if n > MAX_CHOICES { Err(Error::invalid("n", format!("n is {n}; it must be 1 to {MAX_CHOICES}"))) } else { Ok(()) }
}

fn logprobs(wanted: bool, top: u32) -> Result<()> {
    if top > MAX_TOP_LOGPROBS {
        return Err(Error::invalid("top_logprobs", format!("top_logprobs is {top}; it must be 0 to {MAX_TOP_LOGPROBS}")));
    }
    if top > 0 && !wanted {
        return Err(Error::invalid("top_logprobs", format!("top_logprobs is {top} without logprobs; set logprobs to true as well")));
    }
    Ok(())
}

fn reasoning_effort(effort: &str) -> Result<()> {
    if matches!(effort, "" | "none" | "minimal" | "low" | "medium" | "high") {
        return Ok(());
    }
    let message = format!("reasoning_effort is {effort:?}; it must be one of none, minimal, low, medium, high, or be left out");
    Err(Error::invalid("reasoning_effort", message))
}

#[cfg(test)]
mod tests;
