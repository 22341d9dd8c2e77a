//! Conversations as tokens: the template is rendered here, the engine sees no messages.

use tokenizers::Tokenizer;

use llama_stack_core::{Error, Result};
use llama_stack_models::template::{ChatTemplate, SpecialTokens};
use llama_stack_proto::v1::{Message, ToolDefinition};

/// How a model reads conversations.
pub(crate) struct Prompting {
    template: Option<ChatTemplate>,
    /// Whether the template can show tools to the model.
    tools: bool,
}

impl Prompting {
    /// # Errors
    /// `InvalidArgument` for a template that cannot be parsed.
    pub(crate) fn new(source: Option<&str>, tokens: SpecialTokens) -> Result<Self> {
        let template = source.map(|source| ChatTemplate::parse(source, tokens)).transpose()?;
        Ok(Self { template, tools: source.is_some_and(|source| source.contains("tools")) })
    }

    /// The text that the model continues with its answer.
    ///
    /// # Errors
    /// `InvalidArgument`: the model has no template (`no_chat_template`), its template knows no tools
    /// (`tools_unsupported`), or it refuses these messages.
    pub(crate) fn render(&self, model: &str, messages: &[Message], tools: &[ToolDefinition]) -> Result<String> {
        let Some(template) = &self.template else {
            let message = format!("model {model:?} has no chat template: use a completion, or give the model a chat_template");
            return Err(Error::invalid("model", message).with_reason("no_chat_template"));
        };
        if !tools.is_empty() && !self.tools {
            let message = format!("model {model:?} cannot call tools: its chat template has no place for them");
            return Err(Error::invalid("tools", message).with_reason("tools_unsupported"));
        }
        template.render(messages, tools, true)
    }
}

/// `special` adds what the tokenizer puts around a text. Names of special tokens within the text become those tokens.
///
/// # Errors
/// `InvalidArgument` for a text without tokens, or that the tokenizer refuses.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, special)
        .map_err(|error| Error::invalid("prompt", "the prompt cannot be turned into tokens").with_source(error))?;
    Ok(encoding.get_ids().to_vec())
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
