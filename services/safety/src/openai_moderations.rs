//! `remote::openai-moderations`: any server with OpenAI's `/v1/moderations`, this stack's own included.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};

use llama_stack_core::{Context, Deps, Error, Result, Safety, context::Secret, page};
use llama_stack_proto::v1::{
    CategoryScore, Image, ListShieldsRequest, ListShieldsResponse, Message, Part, RunShieldRequest, RunShieldResponse, Shield, ShieldStage,
    Violation, image::Source, part::Content, violation::Level,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

mod upstream;

use upstream::Upstream;

use crate::{judged, reasons};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The base of the API, for example `https://api.openai.com/v1`; one without a path gets `/v1`.
    url: String,
    /// Sent as bearer token. A caller's own key for this provider goes before it. Default: none.
    #[serde(default)]
    api_key: Secret,
    /// The moderation model at that server. Default: the server's choice.
    #[serde(default)]
    model: String,
    /// The shield's id. Default: the provider's.
    #[serde(default)]
    id: String,
    /// Scores at or above this are violations; greater than 0, at most 1. Default: what the server flags.
    #[serde(default)]
    threshold: Option<f32>,
    /// Of a whole call. Default 30, greater than 0.
    #[serde(default = "default_timeout")]
    timeout_seconds: f64,
    /// Attempts after the first, where they are safe: no connection, or status 429, 502, 503. Default 2.
    #[serde(default = "default_retries")]
    retries: u32,
}

fn default_timeout() -> f64 {
    30.0
}

fn default_retries() -> u32 {
    2
}

/// Contacts nobody: a server may start later than this stack.
///
/// # Errors
/// `InvalidArgument` that names what is wrong in the configuration.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Safety>> {
    if !(config.timeout_seconds > 0.0 && config.timeout_seconds <= 3_600.0) {
        return Err(Error::invalid("config.timeout_seconds", "must be greater than 0 and at most 3600"));
    }
    if config.threshold.is_some_and(|threshold| !(threshold > 0.0 && threshold <= 1.0)) {
        return Err(Error::invalid("config.threshold", "must be greater than 0 and at most 1"));
    }
    let timeout = Duration::from_secs_f64(config.timeout_seconds);
    let upstream = Upstream::new(&deps.provider_id, endpoint(&config.url)?, config.api_key, timeout, config.retries)?;
    let id = if config.id.is_empty() { deps.provider_id } else { config.id };
    Ok(Arc::new(OpenAiModerations { id, model: config.model, threshold: config.threshold, upstream }))
}

fn endpoint(url: &str) -> Result<Url> {
    let wrong = |what: &str| Error::invalid("config.url", what.to_owned());
    let mut url = Url::parse(url).map_err(|error| wrong("not a URL like https://api.openai.com/v1").with_source(error))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("must begin with http:// or https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a user or password; put the key into api_key"));
    }
    let base = if url.path() == "/" { "/v1" } else { url.path() };
    let path = format!("{}/moderations", base.trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

struct OpenAiModerations {
    id: String,
    model: String,
    threshold: Option<f32>,
    upstream: Upstream,
}

/// What servers send. A category that is null, or a score, was not judged.
#[derive(Deserialize)]
struct Moderation {
    results: Vec<Judged>,
}

#[derive(Deserialize)]
struct Judged {
    flagged: bool,
    #[serde(default)]
    categories: Map<String, Value>,
    #[serde(default)]
    category_scores: Map<String, Value>,
}

impl OpenAiModerations {
    /// The message as one input: its text, and its images where it has any.
    fn body(&self, message: &Message) -> Result<Value> {
        let images = images(&message.parts)?;
        let text = judged::text(message);
        let input = if images.is_empty() {
            Value::from(text)
        } else {
            let text = (!text.is_empty()).then(|| json!({ "type": "text", "text": text }));
            text.into_iter().chain(images).collect()
        };
        let mut body = json!({ "input": input });
        if !self.model.is_empty() {
            body["model"] = self.model.as_str().into();
        }
        Ok(body)
    }

    fn response(&self, moderation: Moderation, bytes: u64) -> RunShieldResponse {
        let mut scores: Vec<CategoryScore> = Vec::new();
        let flagged = moderation.results.iter().any(|result| result.flagged);
        for result in moderation.results {
            for (code, score) in &result.category_scores {
                let score = score.as_f64().unwrap_or_default().clamp(0.0, 1.0) as f32;
                enter(&mut scores, code, score, self.threshold.is_some_and(|threshold| score >= threshold));
            }
            for (code, violated) in &result.categories {
                let violated = self.threshold.is_none() && violated.as_bool().unwrap_or_default();
                enter(&mut scores, code, 0.0, violated);
            }
        }
        let categories: Vec<String> = scores.iter().filter(|score| score.violated).map(|score| score.code.clone()).collect();
        let forbidden = if self.threshold.is_some() { !categories.is_empty() } else { flagged || !categories.is_empty() };
        let violation = forbidden.then(|| Violation {
            level: Level::Error.into(),
            user_message: "I can't help with that.".into(),
            categories,
            reason: reasons::UNSAFE.into(),
        });
        RunShieldResponse { violation, scores, judged_bytes: bytes, ..RunShieldResponse::default() }
    }
}

/// The greatest score, and violated where any result says so.
fn enter(scores: &mut Vec<CategoryScore>, code: &str, score: f32, violated: bool) {
    match scores.iter_mut().find(|there| there.code == code) {
        Some(there) => {
            there.score = there.score.max(score);
            there.violated |= violated;
        }
        None => scores.push(CategoryScore { code: code.to_owned(), score, violated }),
    }
}

fn images(parts: &[Part]) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for part in parts {
        match &part.content {
            Some(Content::Image(image)) => found.push(json!({ "type": "image_url", "image_url": { "url": address(image)? } })),
            Some(Content::ToolResult(result)) => found.extend(images(&result.parts)?),
            _ => {}
        }
    }
    Ok(found)
}

fn address(image: &Image) -> Result<String> {
    match &image.source {
        Some(Source::Url(url)) => Ok(url.clone()),
        Some(Source::Data(data)) => Ok(format!("data:{};base64,{}", image.media_type, STANDARD.encode(data))),
        None => Err(Error::invalid("messages", "a message holds an image without a source")),
    }
}

#[async_trait::async_trait]
impl Safety for OpenAiModerations {
    async fn list_shields(&self, _cx: &Context, request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shield = Shield {
            id: self.id.clone(),
            provider_type: "remote::openai-moderations".into(),
            stages: vec![ShieldStage::Input.into(), ShieldStage::Output.into()],
            description: format!("The moderations of {}", self.upstream.host()),
            threshold: self.threshold.unwrap_or_default(),
            ..Shield::default()
        };
        let (shields, next_page_token) = page::slice(vec![shield], |shield| &shield.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListShieldsResponse { shields, next_page_token })
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        if request.shield_id != self.id {
            let message = format!("no shield {:?}; there is: {}", request.shield_id, self.id);
            return Err(Error::not_found(message).with_reason("shield_not_found").with_field("shield_id"));
        }
        let absent = || Error::invalid("messages", "messages is empty: the last one is what a shield judges");
        let message = request.messages.last().ok_or_else(absent)?;
        let bytes = judged::bytes(message);
        if bytes == 0 && judged::image(message).is_none() {
            return Ok(RunShieldResponse::default());
        }
        let answer = cx.within(self.upstream.ask(cx, &self.body(message)?)).await?;
        let moderation: Moderation =
            serde_json::from_slice(&answer).map_err(|error| self.upstream.malformed("no results of moderations").with_source(error))?;
        if moderation.results.is_empty() {
            return Err(self.upstream.malformed("an empty list of results"));
        }
        Ok(self.response(moderation, bytes))
    }
}
