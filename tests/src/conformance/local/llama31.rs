//! The tiny model of `tests/fixtures/llama31`, and what the reference implementation computes with it.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use llama_stack_core::Inference;
use llama_stack_proto::v1::{ChatRequest, CompleteRequest, Message, Role, SamplingParams, TokenLogprob, TokenizeRequest};
use serde::Deserialize;

use super::{chat, complete, cx};

pub const TINY: &str = "tiny-llama-3.1";

/// What float16 may take from a logarithm: this much, and this share of it.
pub const TOLERANCE: f32 = 0.01;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

/// A prompt, the likeliest tokens after it, and its greedy answer.
#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    /// Or `messages`.
    text: Option<String>,
    messages: Option<Vec<Said>>,
    /// What the template makes of the messages.
    prompt: Option<String>,
    tokens: Vec<u32>,
    #[serde(flatten)]
    answer: Answer,
    /// Where positions are not scaled. Of the long prompt alone.
    unscaled: Option<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    /// The highest ones of the first step.
    logits: Vec<(u32, f32)>,
    /// Of all of them.
    logsumexp: f32,
    greedy: Vec<u32>,
    logprobs: Vec<f32>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/llama31"))
}

pub fn cases() -> Vec<Case> {
    let recorded = std::fs::read(folder().join("expected.json")).unwrap();
    serde_json::from_slice::<Expected>(&recorded).unwrap().cases
}

pub fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

impl Case {
    /// As it is answered where positions are not scaled.
    pub fn unscaled(self) -> Self {
        Self { answer: self.unscaled.unwrap(), unscaled: None, ..self }
    }

    fn messages(&self) -> Vec<Message> {
        let role = |said: &Said| Role::from_str_name(&format!("ROLE_{}", said.role.to_uppercase())).unwrap();
        self.messages.iter().flatten().map(|said| Message::text(role(said), &said.content)).collect()
    }

    /// The prompt becomes the tokens of the reference.
    pub async fn is_tokenized_alike(&self, inference: &Arc<dyn Inference>) {
        let text = self.text.clone().unwrap_or_default();
        let request =
            TokenizeRequest { model: TINY.into(), text, messages: self.messages(), add_special_tokens: true, ..TokenizeRequest::default() };
        let read = inference.tokenize(&cx(), request).await.unwrap();
        assert_eq!((read.prompt, read.tokens), (self.prompt.clone().unwrap_or_default(), self.tokens.clone()), "{}", self.name);
    }

    /// The answer is the reference's, token by token, and so are its logarithms and those of the likeliest first tokens.
    pub async fn is_answered_alike(&self, inference: &Arc<dyn Inference>) {
        self.is_answered_within(TOLERANCE, inference).await;
    }

    pub async fn is_answered_within(&self, tolerance: f32, inference: &Arc<dyn Inference>) {
        let length = self.answer.greedy.len() as u32;
        let made = match &self.text {
            Some(text) => {
                let sampling = Some(SamplingParams::greedy(length));
                let request = CompleteRequest { sampling, logprobs: true, top_logprobs: 20, ..CompleteRequest::text(TINY, text) };
                complete(inference, request).await.choices.remove(0).logprobs
            }
            None => {
                let request = ChatRequest::new(TINY, self.messages()).greedy(length);
                chat(inference, ChatRequest { logprobs: true, top_logprobs: 20, ..request }).await.choices.remove(0).logprobs
            }
        };
        let (farthest, at) = self.distance(&made);
        assert_eq!(made.iter().map(|token| token.token_id).collect::<Vec<_>>(), self.answer.greedy, "{}", self.name);
        assert!(farthest < tolerance, "{}: a logarithm is {farthest} beside the reference at step {at}", self.name);
    }

    /// Of the logarithms from the reference's, and at which step.
    fn distance(&self, made: &[TokenLogprob]) -> (f32, usize) {
        let beside = |made: f32, wanted: f32| (made - wanted).abs() / (1.0 + wanted.abs());
        let first: HashMap<u32, f32> = self.answer.logits.iter().map(|(id, logit)| (*id, logit - self.answer.logsumexp)).collect();
        let top = made[0].top.iter().map(|top| (first.get(&top.token_id).map_or(f32::INFINITY, |wanted| beside(top.logprob, *wanted)), 0));
        let steps =
            made.iter().zip(&self.answer.logprobs).enumerate().map(|(step, (token, wanted))| (beside(token.logprob, *wanted), step));
        top.chain(steps).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    }
}
