//! How one model reads and writes: its tokenizer, its template, its ends.

use std::sync::Arc;

use llguidance::ParserFactory;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, Message, TokenizeRequest, TokenizeResponse, ToolDefinition, complete_request::Prompt, tool_choice::Mode,
};

use crate::{constraint, template::ChatTemplate};

use super::{
    plan::{Plan, Wanted},
    sampler::Defaults,
    text::Vocabulary,
};

/// A text, and whether to add what the tokenizer puts around one. A function, for each engine brings its own tokenizer.
/// Names of special tokens within the text become those tokens.
pub type Encode = Box<dyn Fn(&str, bool) -> Result<Vec<u32>, String> + Send + Sync>;

/// Of a model that is loaded. Its methods compute: they do not belong on the threads that serve.
pub struct Lexicon {
    model: String,
    encode: Encode,
    template: Option<ChatTemplate>,
    pub vocabulary: Vocabulary,
    /// None of a model that only reads.
    pub grammars: Option<Arc<ParserFactory>>,
    /// Tokens with which the model ends its answer; empty only of a model that writes none.
    pub ends: Arc<[u32]>,
    pub defaults: Defaults,
    /// Tokens that a prompt and its answer may have together.
    pub context_length: u32,
}

/// What an engine's loader finds.
pub struct Parts {
    pub encode: Encode,
    pub template: Option<ChatTemplate>,
    pub writing: Writing,
    pub ends: Vec<u32>,
    pub defaults: Defaults,
    pub context_length: u32,
}

/// What a loader finds of the tokens.
pub enum Writing {
    /// What each of them writes, and grammars over that.
    Grammars(Arc<ParserFactory>),
    /// The model only reads, an encoder: how many tokens it has. Such files need not name an end, without which there
    /// are no grammars.
    None(usize),
}

/// Ends of an answer that files often fail to name.
pub const ENDS: [&str; 9] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>", "<|eot|>"];

impl Lexicon {
    pub fn new(model: &str, parts: Parts) -> Self {
        let (vocabulary, grammars) = match parts.writing {
            Writing::Grammars(grammars) => (Vocabulary::new(grammars.tok_env().clone()), Some(grammars)),
            Writing::None(size) => (Vocabulary::counted(size), None),
        };
        let template = parts.template.map(|template| template.with_control_tokens(vocabulary.special()));
        Self {
            model: model.to_owned(),
            encode: parts.encode,
            template,
            vocabulary,
            grammars,
            ends: parts.ends.into(),
            defaults: parts.defaults,
            context_length: parts.context_length,
        }
    }

    /// `max_tokens` stands in where the request names no number. Where no tool may be called, none is shown to the model
    /// and nothing that it writes is taken for a call: `request` comes back without them.
    ///
    /// # Errors
    /// `InvalidArgument`: `no_chat_template` · `context_length_exceeded` with both numbers · a constraint that cannot be
    /// used · as [`ChatTemplate::render`].
    pub fn chat(&self, request: &mut ChatRequest, max_tokens: Option<u32>) -> Result<Plan> {
        if request.tool_choice.as_ref().is_some_and(|choice| choice.mode() == Mode::None) {
            request.tools.clear();
        }
        let text = self.render(&request.messages, &request.tools)?;
        let wanted = Wanted {
            prompt: self.encode(&text, false)?,
            sampling: request.sampling.clone().unwrap_or_default(),
            constraint: constraint::for_chat(request)?,
            choices: request.choices(),
            score: request.logprobs.then_some(request.top_logprobs as usize),
            score_prompt: false,
        };
        wanted.plan(self, max_tokens)
    }

    /// The plan, and the prompt's text where the answer is to begin with it.
    ///
    /// # Errors
    /// As [`Lexicon::chat`].
    pub fn complete(&self, request: &CompleteRequest, max_tokens: Option<u32>) -> Result<(Plan, Option<String>)> {
        let prompt = match &request.prompt {
            Some(Prompt::Text(text)) => self.encode(text, true)?,
            Some(Prompt::Tokens(tokens)) => self.checked(tokens.ids.clone(), "prompt.tokens")?,
            None => Vec::new(),
        };
        let echo = request.echo.then(|| match &request.prompt {
            Some(Prompt::Text(text)) => text.clone(),
            _ => self.vocabulary.text(&prompt),
        });
        let wanted = Wanted {
            prompt,
            sampling: request.sampling.clone().unwrap_or_default(),
            constraint: request.response_format.as_ref().map(constraint::for_format).transpose()?.flatten(),
            choices: request.choices(),
            score: request.logprobs.then_some(request.top_logprobs as usize),
            score_prompt: request.logprobs && request.echo,
        };
        Ok((wanted.plan(self, max_tokens)?, echo))
    }

    /// # Errors
    /// `InvalidArgument` for a text that the tokenizer refuses · as [`ChatTemplate::render`].
    pub fn tokenize(&self, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let conversation = !request.messages.is_empty();
        let prompt = if conversation { self.render(&request.messages, &request.tools)? } else { request.text };
        let tokens = self.encode(&prompt, request.add_special_tokens && !conversation)?;
        let prompt = if conversation { prompt } else { String::new() };
        Ok(TokenizeResponse { tokens, prompt, context_length: self.context_length, ..TokenizeResponse::default() })
    }

    /// The text that the model continues with its answer. Names of control tokens within messages are made harmless.
    fn render(&self, messages: &[Message], tools: &[ToolDefinition]) -> Result<String> {
        let Some(template) = &self.template else {
            let message = format!("model {:?} has no chat template: use a completion, or give the model a chat_template", self.model);
            return Err(Error::invalid("model", message).with_reason("no_chat_template"));
        };
        template.render(messages, tools, true)
    }

    /// A text's tokens, with what the tokenizer puts around one.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that the tokenizer refuses.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(text, true)
    }

    /// Tokens of a caller, who may have made them up.
    ///
    /// # Errors
    /// `InvalidArgument` for one that the model does not have.
    pub fn checked(&self, tokens: Vec<u32>, field: &str) -> Result<Vec<u32>> {
        let size = self.vocabulary.size();
        match tokens.iter().find(|id| **id as usize >= size) {
            Some(id) => Err(Error::invalid(field, format!("token {id} is beyond the model's {size} tokens"))),
            None => Ok(tokens),
        }
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        (self.encode)(text, special).map_err(|error| Error::invalid("prompt", "the prompt cannot be turned into tokens").with_source(error))
    }
}
