//! What servers send: chunks of streams and whole answers, which differ in `delta` and `message` alone.
//!
//! Everything is optional, and what is not used is not read: servers leave out, add and null what they like.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use llama_stack_proto::v1::{TokenLogprob, Usage, token_logprob::TopLogprob};

#[derive(Deserialize)]
pub(super) struct Chunk {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<WireUsage>,
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct Choice {
    pub(super) index: Option<u32>,
    #[serde(alias = "message")]
    pub(super) delta: Option<Delta>,
    /// Of a completion.
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
pub(super) struct Delta {
    #[serde(default, deserialize_with = "content")]
    pub(super) content: Content,
    /// DeepSeek, vLLM and many others.
    #[serde(default, deserialize_with = "text")]
    pub(super) reasoning_content: Option<String>,
    /// OpenRouter, Groq, Ollama and newer vLLM.
    #[serde(default, deserialize_with = "text")]
    pub(super) reasoning: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) tool_calls: Option<Vec<CallDelta>>,
    /// The form before tools.
    pub(super) function_call: Option<FunctionDelta>,
}

/// Text, and the thinking that Mistral's reasoning models put between it.
#[derive(Default)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) thinking: String,
}

#[derive(Deserialize)]
pub(super) struct CallDelta {
    pub(super) index: Option<u32>,
    pub(super) id: Option<String>,
    pub(super) function: Option<FunctionDelta>,
}

#[derive(Default, Deserialize)]
pub(super) struct FunctionDelta {
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "arguments")]
    pub(super) arguments: String,
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name for cached tokens.
    prompt_cache_hit_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u32>,
}

/// Of a chat, or, in lists side by side, of a completion.
#[derive(Deserialize)]
pub(super) struct Logprobs {
    content: Option<Vec<Logprob>>,
    refusal: Option<Vec<Logprob>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
}

#[derive(Deserialize)]
struct Logprob {
    token: String,
    logprob: Option<f32>,
    bytes: Option<Vec<u8>>,
    top_logprobs: Option<Vec<Logprob>>,
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens).or(usage.prompt_cache_hit_tokens);
        Usage {
            prompt_tokens: usage.prompt_tokens.unwrap_or_default(),
            completion_tokens: usage.completion_tokens.unwrap_or_default(),
            cached_tokens: cached.unwrap_or_default(),
            reasoning_tokens: usage.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or_default(),
        }
    }
}

/// Some send a token that was all but impossible as null, others as a very small number.
fn logarithm(value: Option<f32>) -> f32 {
    value.unwrap_or(f32::NEG_INFINITY).min(0.0)
}

impl Logprobs {
    pub(super) fn into_tokens(self) -> Vec<TokenLogprob> {
        match self.content.or(self.refusal) {
            Some(content) => content.into_iter().map(Logprob::into_token).collect(),
            None => {
                let mut logprobs = self.token_logprobs.unwrap_or_default().into_iter();
                let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
                let tokens = self.tokens.unwrap_or_default().into_iter();
                tokens.map(|token| listed(token, logprobs.next().flatten(), tops.next().flatten())).collect()
            }
        }
    }
}

impl Logprob {
    fn into_token(self) -> TokenLogprob {
        let top = self.top_logprobs.unwrap_or_default().into_iter();
        let top = top.map(|top| TopLogprob {
            bytes: top.bytes.unwrap_or_else(|| top.token.clone().into_bytes()),
            logprob: logarithm(top.logprob),
            token: top.token,
            token_id: 0,
        });
        TokenLogprob {
            top: top.collect(),
            bytes: self.bytes.unwrap_or_else(|| self.token.clone().into_bytes()),
            logprob: logarithm(self.logprob),
            token: self.token,
            token_id: 0,
        }
    }
}

/// A token of a completion, whose alternatives are a map without order.
fn listed(token: String, logprob: Option<f32>, top: Option<serde_json::Map<String, Value>>) -> TokenLogprob {
    let top = top.unwrap_or_default().into_iter();
    let mut top: Vec<TopLogprob> = top
        .map(|(token, logprob)| TopLogprob {
            bytes: token.clone().into_bytes(),
            logprob: logarithm(logprob.as_f64().map(|value| value as f32)),
            token,
            token_id: 0,
        })
        .collect();
    top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
    TokenLogprob { bytes: token.clone().into_bytes(), logprob: logarithm(logprob), token, token_id: 0, top }
}

/// A string, or parts of which the texts count.
fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
    let mut content = Content::default();
    match Value::deserialize(deserializer)? {
        Value::String(text) => content.text = text,
        Value::Array(parts) => parts.iter().for_each(|part| content.add(part)),
        _ => {}
    }
    Ok(content)
}

impl Content {
    fn add(&mut self, part: &Value) {
        match part["type"].as_str() {
            Some("thinking") => match &part["thinking"] {
                Value::String(text) => self.thinking.push_str(text),
                Value::Array(parts) => self.thinking.extend(parts.iter().filter_map(|part| part["text"].as_str())),
                _ => {}
            },
            _ => self.text.push_str(part["text"].as_str().unwrap_or_default()),
        }
    }
}

/// A string, if it is one.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

/// JSON in a string, or, from some, the JSON itself.
fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}
