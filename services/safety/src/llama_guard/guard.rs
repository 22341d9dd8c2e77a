//! The model behind a shield: one forward pass for the score, and a few words more only where a text is unsafe.
//!
//! ```text
//! completion   prompt ends at the answer ── 1 token, its alternatives ── safe ──────────────────────> Verdict
//!                                                                     └─ unsafe ── "unsafe\n" ── codes ─┘
//! chat         the conversation, by the model's own template ── the answer ── alternatives, codes ──> Verdict
//! ```
//!
//! The contract has raw completions, so a prompt goes there, and never into a chat, whose template would wrap one guard
//! prompt in another.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use llama_stack_core::{Code, Context, Error, Inference, Result};
use llama_stack_proto::v1::{
    ChatRequest, CompleteRequest, Message, SamplingParams, TokenLogprob, TokenizeRequest, Tokens, complete_request::Prompt,
};
use serde::Deserialize;

use super::{
    conversation::{self, Speaker, Turn},
    family::Family,
    policy::Policy,
    prompt,
    verdict::{Odds, Said, Verdict},
};
use crate::reasons;

/// A whole answer, with all codes, is shorter.
const ANSWER_TOKENS: u32 = 64;
/// What is asked for: all that the contract gives, else what the oldest of these APIs gives, else nothing.
const ALTERNATIVES: [u32; 3] = [20, 5, 0];

/// How the model is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ask {
    /// The ready prompt, as a raw completion.
    #[default]
    Completion,
    /// The conversation, by the template that the model's server has.
    Chat,
}

pub(super) struct Guard {
    pub(super) inference: Arc<dyn Inference>,
    pub(super) model: String,
    pub(super) family: Family,
    pub(super) ask: Ask,
    /// Index into [`ALTERNATIVES`]: how many the model's server tells.
    alternatives: AtomicU32,
    /// It tells the tokens of a text, so that the prompt is exactly the published one, begin token included.
    tokenizes: AtomicBool,
}

/// By what a text is judged.
pub(super) struct Question<'a> {
    pub(super) policy: &'a Policy,
    /// Scores at or above are unsafe.
    pub(super) threshold: f32,
}

struct Answer {
    text: String,
    tokens: Vec<TokenLogprob>,
}

impl Guard {
    pub(super) fn new(inference: Arc<dyn Inference>, model: String, family: Family, ask: Ask) -> Self {
        Self { inference, model, family, ask, alternatives: AtomicU32::new(0), tokenizes: AtomicBool::new(true) }
    }

    /// Judges the last turn. A conversation that is too long for the model is shortened at its beginning.
    ///
    /// # Errors
    /// The model's; nothing was judged then. `InvalidArgument`, `context_length_exceeded`, where the last turn alone is too
    /// long.
    pub(super) async fn judge(&self, cx: &Context, question: &Question<'_>, turns: &[Turn]) -> Result<Verdict> {
        let mut shown = turns.to_vec();
        loop {
            let verdict = match self.ask {
                Ask::Completion => self.by_completion(cx, question, &shown).await,
                Ask::Chat => self.by_chat(cx, question, &shown).await,
            };
            match verdict {
                Err(error) if error.reason() == Some("context_length_exceeded") && shown.len() > 1 => {
                    let fewer = conversation::latest(shown.clone(), shown.len() / 2 - 1);
                    if fewer.len() >= shown.len() {
                        return Err(error);
                    }
                    shown = fewer;
                }
                verdict => return verdict,
            }
        }
    }

    async fn by_completion(&self, cx: &Context, question: &Question<'_>, turns: &[Turn]) -> Result<Verdict> {
        // The empty line that these models write before their answer.
        let prompt = prompt::body(self.family, question.policy, turns) + "\n\n";
        let first = self.complete(cx, &prompt, 1).await?;
        if let Some(odds) = Odds::read(&first.tokens) {
            return self.scored(cx, question, &prompt, odds, &first.text).await;
        }
        if first.tokens.is_empty() && Said::read(&first.text) == Said::Safe {
            return Ok(Verdict::by_words(&first.text, question.policy));
        }
        // Blank still, or no probabilities: the whole answer says it.
        let whole = self.complete(cx, &prompt, ANSWER_TOKENS).await?;
        match Odds::read(&whole.tokens) {
            Some(odds) => self.scored(cx, question, &prompt, odds, &whole.text).await,
            None => Ok(Verdict::by_words(&whole.text, question.policy)),
        }
    }

    async fn scored(&self, cx: &Context, question: &Question<'_>, prompt: &str, odds: Odds, said: &str) -> Result<Verdict> {
        if !odds.is_verdict() {
            return Ok(no_verdict(said));
        }
        let score = odds.score();
        if score < question.threshold {
            return Ok(Verdict::safe(score, false));
        }
        let listed = match Said::read(said) {
            Said::Unsafe(listed) if !listed.trim().is_empty() => listed,
            _ => self.complete(cx, &format!("{prompt}unsafe\n"), ANSWER_TOKENS).await?.text,
        };
        Ok(Verdict::unsafe_by(&listed, question.policy, score, false))
    }

    async fn by_chat(&self, cx: &Context, question: &Question<'_>, turns: &[Turn]) -> Result<Verdict> {
        let answer = self.chat(cx, turns).await?;
        let Some(odds) = Odds::read(&answer.tokens) else { return Ok(Verdict::by_words(&answer.text, question.policy)) };
        if !odds.is_verdict() {
            return Ok(no_verdict(&answer.text));
        }
        let score = odds.score();
        if score < question.threshold {
            return Ok(Verdict::safe(score, false));
        }
        // The codes of an answer that says `safe`, below the threshold of certainty, are not to be had.
        let listed = if let Said::Unsafe(listed) = Said::read(&answer.text) { listed } else { String::new() };
        Ok(Verdict::unsafe_by(&listed, question.policy, score, false))
    }

    async fn complete(&self, cx: &Context, body: &str, max_tokens: u32) -> Result<Answer> {
        let prompt = self.prompt(cx, body).await?;
        loop {
            let alternatives = self.alternatives();
            let request = CompleteRequest {
                model: self.model.clone(),
                prompt: Some(prompt.clone()),
                sampling: Some(SamplingParams::greedy(max_tokens)),
                logprobs: alternatives > 0,
                top_logprobs: alternatives,
                ..CompleteRequest::default()
            };
            match self.inference.complete(cx, request).await {
                Err(error) if self.asks_for_fewer(alternatives, &error) => {}
                answered => {
                    let choice = answered?.choices.into_iter().next().ok_or_else(nothing)?;
                    return Ok(Answer { text: choice.text, tokens: choice.logprobs });
                }
            }
        }
    }

    async fn chat(&self, cx: &Context, turns: &[Turn]) -> Result<Answer> {
        let message = |turn: &Turn| match turn.speaker {
            Speaker::User => Message::user(turn.text.clone()),
            Speaker::Agent => Message::assistant(turn.text.clone()),
        };
        let messages: Vec<Message> = turns.iter().map(message).collect();
        loop {
            let alternatives = self.alternatives();
            let request = ChatRequest {
                logprobs: alternatives > 0,
                top_logprobs: alternatives,
                ..ChatRequest::new(&self.model, messages.clone()).greedy(ANSWER_TOKENS)
            };
            match self.inference.chat(cx, request).await {
                Err(error) if self.asks_for_fewer(alternatives, &error) => {}
                answered => {
                    let choice = answered?.choices.into_iter().next().ok_or_else(nothing)?;
                    return Ok(Answer { text: choice.message.unwrap_or_default().joined_text(), tokens: choice.logprobs });
                }
            }
        }
    }

    /// The exact tokens, where the model's server tells them; else the text, before which a server puts the begin token.
    async fn prompt(&self, cx: &Context, body: &str) -> Result<Prompt> {
        if self.tokenizes.load(Ordering::Relaxed) {
            let text = prompt::whole(self.family, body);
            match self.inference.tokenize(cx, TokenizeRequest { model: self.model.clone(), text, ..TokenizeRequest::default() }).await {
                Ok(tokenized) => return Ok(Prompt::Tokens(Tokens { ids: tokenized.tokens })),
                Err(error) if error.code() == Code::Unimplemented => self.tokenizes.store(false, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        Ok(Prompt::Text(body.to_owned()))
    }

    fn alternatives(&self) -> u32 {
        ALTERNATIVES.get(self.alternatives.load(Ordering::Relaxed) as usize).copied().unwrap_or_default()
    }

    /// Whether the server does not tell so many alternatives: from now on it is asked for fewer, and at last for none.
    fn asks_for_fewer(&self, asked: u32, error: &Error) -> bool {
        if asked == 0 || !is_about_logprobs(error) {
            return false;
        }
        tracing::info!(model = self.model, asked, error = error.message(), "the guard's server tells fewer log-probabilities");
        let next = ALTERNATIVES.iter().position(|alternatives| *alternatives < asked).unwrap_or(ALTERNATIVES.len());
        self.alternatives.fetch_max(next as u32, Ordering::Relaxed);
        true
    }
}

fn is_about_logprobs(error: &Error) -> bool {
    let refused = matches!(error.code(), Code::InvalidArgument | Code::Unimplemented);
    refused && (error.field().is_some_and(|field| field.contains("logprobs")) || error.message().contains("logprobs"))
}

fn no_verdict(said: &str) -> Verdict {
    Verdict::none(if said.trim().is_empty() { reasons::EMPTY_VERDICT } else { reasons::UNPARSEABLE_VERDICT })
}

fn nothing() -> Error {
    Error::unavailable("the shield's model gave no answer").with_reason(reasons::EMPTY_VERDICT)
}
