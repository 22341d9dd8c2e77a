//! An answer, whole or a piece of it: this older API has one form for both.

use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_proto::v1::{self, CompleteResponse, TokenLogprob};

use crate::openai::{FINGERPRINT, chat::finish, logprobs::CompletionLogprobs, new_id, now, usage::Usage};

#[derive(Serialize, JsonSchema)]
pub(crate) struct Completion {
    pub(super) id: String,
    pub(super) object: &'static str,
    /// Seconds since the epoch.
    pub(super) created: i64,
    pub(super) model: String,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<Choice>,
    /// In a stream only where it was asked for: null in all pieces but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<Usage>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CompletionChoice")]
pub(super) struct Choice {
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) logprobs: Option<CompletionLogprobs>,
    pub(super) finish_reason: Option<&'static str>,
}

impl Completion {
    pub(super) fn new(model: String) -> Self {
        Self {
            id: new_id("cmpl"),
            object: "text_completion",
            created: now(),
            model,
            system_fingerprint: FINGERPRINT,
            choices: Vec::new(),
            usage: None,
        }
    }

    /// One response per prompt, in order. `echo`: each begins with its prompt, which may have no log-probabilities.
    pub(super) fn whole(responses: Vec<CompleteResponse>, model: String, echo: bool) -> Self {
        let mut completion = Self::new(model);
        let mut usage = v1::Usage::default();
        for response in responses {
            usage.add(&response.usage.unwrap_or_default());
            for choice in response.choices {
                let mut offset = if echo { unscored(&choice.text, &choice.logprobs) } else { 0 };
                completion.choices.push(Choice {
                    index: completion.choices.len(),
                    finish_reason: finish(choice.finish_reason()),
                    text: choice.text,
                    logprobs: CompletionLogprobs::new(choice.logprobs, &mut offset),
                });
            }
        }
        completion.usage = Some(Some(Usage::from(&usage)));
        completion
    }
}

/// Characters of a text before its tokens that have log-probabilities.
fn unscored(text: &str, tokens: &[TokenLogprob]) -> usize {
    let scored: usize = tokens.iter().map(|token| token.token.chars().count()).sum();
    text.chars().count().saturating_sub(scored)
}
