//! Log-probabilities in the two forms of this API: chat's, and the older one of completions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_proto::v1::{TokenLogprob, token_logprob::TopLogprob};

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatLogprobs")]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<Vec<ChatToken>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChatToken {
    token: String,
    /// Natural logarithm.
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// None for a choice without any.
    pub(crate) fn new(tokens: Vec<TokenLogprob>) -> Option<Self> {
        let content: Vec<ChatToken> = tokens.into_iter().map(ChatToken::from).collect();
        (!content.is_empty()).then_some(Self { content, refusal: None })
    }
}

impl From<TokenLogprob> for ChatToken {
    fn from(token: TokenLogprob) -> Self {
        let top_logprobs = token.top.into_iter().map(Alternative::from).collect();
        Self { token: token.token, logprob: token.logprob, bytes: token.bytes, top_logprobs }
    }
}

impl From<TopLogprob> for Alternative {
    fn from(top: TopLogprob) -> Self {
        Self { token: top.token, logprob: top.logprob, bytes: top.bytes }
    }
}

/// Four lists of the same length, one entry per token.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins, in characters from the start of the choice's text.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// None for a choice without any. `text`: of the choice, as it came with them. `offset`: characters of the choice before these
    /// tokens; moved past them.
    pub(crate) fn new(tokens: Vec<TokenLogprob>, text: &str, offset: &mut usize) -> Option<Self> {
        if tokens.is_empty() {
            return None;
        }
        let mut lists = Self::default();
        for token in tokens {
            lists.text_offset.push(*offset);
            *offset += width(&token, text);
            lists.tokens.push(token.token);
            // JSON has no infinity: of a prompt's first token, which follows nothing, null stands there.
            lists.token_logprobs.push(token.logprob);
            lists.top_logprobs.push(token.top.into_iter().map(|top| (top.token, top.logprob)).collect());
        }
        Some(lists)
    }
}

/// The characters of a text that a token is.
fn width(token: &TokenLogprob, text: &str) -> usize {
    // A prompt's first token follows nothing. Where the tokenizer put it there, it is none of the text; others begin it, but for a space.
    let begins = |bytes: &[u8]| text.as_bytes().starts_with(bytes);
    let bare = token.bytes.strip_prefix(b" ").unwrap_or(&token.bytes);
    if token.logprob == f32::NEG_INFINITY && !begins(&token.bytes) && !begins(bare) {
        return 0;
    }
    token.token.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_on_across_pieces() {
        let token = |text: &str| TokenLogprob { token: text.into(), ..TokenLogprob::default() };
        let mut offset = 0;
        let first = CompletionLogprobs::new(vec![token("né"), token("e")], "née", &mut offset).unwrap();
        let second = CompletionLogprobs::new(vec![token("x")], "x", &mut offset).unwrap();
        assert_eq!((first.text_offset, second.text_offset), (vec![0, 2], vec![3]));
        assert!(CompletionLogprobs::new(Vec::new(), "", &mut offset).is_none());
        let nothing = TokenLogprob { logprob: f32::NEG_INFINITY, ..token("O") };
        let prompt = CompletionLogprobs::new(vec![nothing, token("n")], "On", &mut 0).unwrap();
        assert_eq!(serde_json::to_value(&prompt).unwrap()["token_logprobs"], serde_json::json!([null, 0.0]));
    }

    #[test]
    fn what_a_tokenizer_puts_before_a_prompt_is_none_of_its_text() {
        let token = |text: &str, logprob| TokenLogprob { token: text.into(), bytes: text.into(), logprob, ..TokenLogprob::default() };
        let offsets = |first: TokenLogprob, text: &str| {
            CompletionLogprobs::new(vec![first, token("ce", -1.0), token("!", -1.0)], text, &mut 0).unwrap().text_offset
        };
        assert_eq!(offsets(token("<s>", f32::NEG_INFINITY), "ce!"), [0, 0, 2]);
        assert_eq!(offsets(token("<s>", f32::NEG_INFINITY), "<s>ce!"), [0, 3, 5], "it was echoed");
        assert_eq!(offsets(token("On", f32::NEG_INFINITY), "Once!"), [0, 2, 4]);
        let half = TokenLogprob { bytes: vec![0xf0, 0x9f], ..token("\u{FFFD}", f32::NEG_INFINITY) };
        assert_eq!(offsets(half, "🦀ce!"), [0, 1, 3]);
    }
}
