//! Conversations as text: the template is rendered here, the engine sees no messages. And how long an answer may be.

use std::sync::OnceLock;

use llama_stack_core::{Error, Result};
use llama_stack_models::template::{ChatTemplate, SpecialTokens};
use llama_stack_proto::v1::{Message, ToolDefinition};

use crate::engine::Engine;

/// How a model reads conversations.
pub(crate) struct Prompting {
    template: Option<ChatTemplate>,
    /// The template, once the weights are there and with them the names of the control tokens.
    armed: OnceLock<ChatTemplate>,
}

impl Prompting {
    /// # Errors
    /// `InvalidArgument` for a template that cannot be parsed.
    pub(crate) fn new(source: Option<&str>, tokens: SpecialTokens) -> Result<Self> {
        let template = source.map(|source| ChatTemplate::parse(source, tokens)).transpose()?;
        Ok(Self { template, armed: OnceLock::new() })
    }

    /// The text that the model continues with its answer. Names of control tokens within messages are made harmless.
    ///
    /// # Errors
    /// `InvalidArgument`: the model has no template (`no_chat_template`) · as [`ChatTemplate::render`].
    pub(crate) fn render(&self, model: &str, engine: &Engine, messages: &[Message], tools: &[ToolDefinition]) -> Result<String> {
        let Some(template) = &self.template else {
            let message = format!("model {model:?} has no chat template: use a completion, or give the model a chat_template");
            return Err(Error::invalid("model", message).with_reason("no_chat_template"));
        };
        let template = self.armed.get_or_init(|| template.clone().with_control_tokens(engine.vocabulary.special()));
        template.render(messages, tools, true)
    }
}

/// Tokens for the answer: what was asked for, or else what fits.
///
/// # Errors
/// `InvalidArgument` (`context_length_exceeded`) with both numbers.
pub(crate) fn room(context: u32, prompt: usize, asked: Option<u32>, default: Option<u32>) -> Result<u32> {
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    let needed = prompt.saturating_add(asked.unwrap_or(1));
    if needed > context {
        return Err(Error::context_length(context, needed));
    }
    let left = context - prompt;
    Ok(asked.unwrap_or_else(|| default.map_or(left, |default| default.clamp(1, left))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_context_leaves() {
        assert_eq!(room(100, 60, None, None).unwrap(), 40);
        assert_eq!(room(100, 60, None, Some(16)).unwrap(), 16);
        assert_eq!(room(100, 60, None, Some(64)).unwrap(), 40);
        assert_eq!(room(100, 60, Some(40), Some(16)).unwrap(), 40);
    }

    #[test]
    fn a_context_that_is_exceeded_names_both_numbers() {
        let error = room(100, 60, Some(41), None).unwrap_err();
        assert_eq!(error.reason(), Some("context_length_exceeded"));
        assert!(error.message().contains("100") && error.message().contains("101"), "{}", error.message());
        assert!(room(100, 100, None, None).is_err());
    }
}
