//! An answer, whole or a piece of it: this older API has one form for both.

use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_proto::v1::{self, CompleteChoice, CompleteRequest, CompleteResponse, complete_request::Prompt};

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

    /// One response per prompt, in order.
    pub(super) fn whole(responses: impl IntoIterator<Item = (CompleteResponse, Echo)>, model: String) -> Self {
        let mut completion = Self::new(model);
        let mut usage = v1::Usage::default();
        for (response, echo) in responses {
            usage.add(&response.usage.unwrap_or_default());
            for choice in response.choices {
                let (mut offset, finish_reason) = (echo.unscored(&choice), finish(choice.finish_reason()));
                let logprobs = CompletionLogprobs::new(choice.logprobs, &choice.text, &mut offset);
                completion.choices.push(Choice { index: completion.choices.len(), finish_reason, text: choice.text, logprobs });
            }
        }
        completion.usage = Some(Some(Usage::from(&usage)));
        completion
    }
}

/// What a choice begins with: the prompt, which may have no log-probabilities.
pub(super) enum Echo {
    Nothing,
    Text(String),
    /// Known as tokens alone.
    Tokens,
}

impl Echo {
    pub(super) fn of(request: &CompleteRequest) -> Self {
        match &request.prompt {
            _ if !request.echo => Self::Nothing,
            Some(Prompt::Text(text)) => Self::Text(text.clone()),
            _ => Self::Tokens,
        }
    }

    /// Characters before the tokens that have log-probabilities. Those need not be the text's end: a stop string is in them and not in
    /// the text, and what is a part of a character alone is another one there.
    fn unscored(&self, choice: &CompleteChoice) -> usize {
        // A prompt that is scored too begins with the token that follows nothing.
        if choice.logprobs.first().is_some_and(|first| first.logprob == f32::NEG_INFINITY) {
            return 0;
        }
        let scored: String = choice.logprobs.iter().map(|token| token.token.as_str()).collect();
        let prompt = match self {
            Self::Nothing => return 0,
            Self::Text(prompt) if !choice.text.ends_with(&scored) && !scored.starts_with(prompt.as_str()) => {
                choice.text.starts_with(prompt.as_str()).then_some(prompt)
            }
            _ => None,
        };
        match prompt {
            Some(prompt) => prompt.chars().count(),
            None => choice.text.chars().count().saturating_sub(scored.chars().count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use llama_stack_proto::v1::TokenLogprob;

    use super::*;

    #[test]
    fn tokens_stand_after_an_echo_whatever_became_of_them() {
        let offsets = |prompt: Prompt, echo: bool, text: &str, tokens: &[&str]| {
            let token = |token: &&str| TokenLogprob { token: (*token).into(), ..TokenLogprob::default() };
            let choice = CompleteChoice { text: text.into(), logprobs: tokens.iter().map(token).collect(), ..CompleteChoice::default() };
            let request = CompleteRequest { prompt: Some(prompt), echo, ..CompleteRequest::default() };
            let response = CompleteResponse { choices: vec![choice], ..CompleteResponse::default() };
            let completion = Completion::whole([(response, Echo::of(&request))], "m".into());
            serde_json::to_value(&completion).unwrap()["choices"][0]["logprobs"]["text_offset"].clone()
        };
        let prompt = || Prompt::Text("Hé".into());
        assert_eq!(offsets(prompt(), true, "Hé you", &[" y", "ou"]), json!([2, 4]));
        assert_eq!(offsets(prompt(), true, "Hé you", &[" you", " stop"]), json!([2, 6]), "a stop string was taken away");
        assert_eq!(offsets(prompt(), true, "Hé🦀", &["\u{FFFD}", "\u{FFFD}"]), json!([2, 3]), "two parts of one character");
        assert_eq!(offsets(prompt(), true, "Hé you", &["H", "é", " you"]), json!([0, 1, 2]), "the prompt is scored too");
        let first = |token: &str| TokenLogprob { token: token.into(), logprob: f32::NEG_INFINITY, ..TokenLogprob::default() };
        let halves = CompleteChoice { text: "🦀".into(), logprobs: vec![first("\u{FFFD}")], ..CompleteChoice::default() };
        assert_eq!(Echo::Text("🦀".into()).unscored(&halves), 0, "the prompt is scored, and its first token is a part of a character");
        assert_eq!(offsets(Prompt::Tokens(v1::Tokens::default()), true, "Hé you", &[" you"]), json!([2]));
        assert_eq!(offsets(prompt(), false, " you", &[" you", " stop"]), json!([0, 4]));
    }
}
