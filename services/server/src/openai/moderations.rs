//! `/v1/moderations`: a view of `RunShield`. The model is a shield.

use std::collections::BTreeMap;

use axum::extract::State;
use futures::{StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use llama_stack_core::{Context, Error, Result, Safety};
use llama_stack_proto::v1::{
    GetShieldRequest, Image, ListShieldsRequest, Message, Part, Role, RunShieldRequest, RunShieldResponse, Shield, ShieldStage,
    image::Source, part::Content, violation::Level,
};

use super::{
    new_id,
    one_or_many::{OneOf, TextOr},
};
use crate::http::{ApiError, AppState, Caller, Json};

mod names;

/// Texts in one request.
const MAX_INPUTS: usize = 1_000;
/// Texts of one request that are judged at once.
const AT_ONCE: usize = 8;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CreateModeration {
    /// A text, a list of texts, each with a result of its own, or a list of texts and images that are one input together.
    input: TextOr<InputItem>,
    /// A shield's id. Default: the first shield of the manifest.
    model: Option<String>,
}

/// One entry of such a list.
type InputItem = OneOf<ModerationPart>;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub(crate) struct ModerationPart {
    /// `text` or `image_url`.
    r#type: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
struct ImageUrl {
    /// http(s) or data URL.
    url: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Moderation {
    id: String,
    model: String,
    results: Vec<ModerationResult>,
}

#[derive(Serialize, JsonSchema)]
struct ModerationResult {
    flagged: bool,
    /// By the shield's own codes, and by the names that OpenAI's API has.
    categories: BTreeMap<String, bool>,
    category_scores: BTreeMap<String, f32>,
    /// To what of the input each score applies; nothing for a category that the shield does not judge by.
    category_applied_input_types: BTreeMap<String, Vec<&'static str>>,
    /// The classic Llama Stack's, as `metadata`: what the end user may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_message: Option<String>,
    /// `reason` and `level` (`warn`, `error`) of what was found, and `unscored` where scores are 0 or 1 by the shield's words.
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
}

pub(crate) async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CreateModeration>,
) -> Result<Json<Moderation>, ApiError> {
    let shield = shield(&*state.safety, &cx, body.model.as_deref()).await?;
    let inputs = inputs(body.input)?;
    let calls = inputs.into_iter().map(|message| judge(&*state.safety, &cx, &shield, message));
    let results: Vec<ModerationResult> = cx.within(stream::iter(calls).buffered(AT_ONCE).try_collect()).await?;
    Ok(Json(Moderation { id: new_id("modr"), model: shield.id.clone(), results }))
}

/// # Errors
/// `NotFound` on `model`, with the shields that there are · `FailedPrecondition` where there is none to be the default.
async fn shield(safety: &dyn Safety, cx: &Context, model: Option<&str>) -> Result<Shield> {
    if let Some(id) = model.filter(|id| !id.is_empty()) {
        let found = cx.within(safety.get_shield(cx, GetShieldRequest { id: id.to_owned() })).await;
        return found.map_err(|error| error.with_field("model"));
    }
    let first = cx.within(safety.list_shields(cx, ListShieldsRequest { page_size: 1, ..ListShieldsRequest::default() })).await?;
    let none = || Error::failed_precondition("this stack has no shield: name one under providers.safety").with_reason("no_shield");
    first.shields.into_iter().next().ok_or_else(none)
}

/// What is judged, each by itself.
///
/// # Errors
/// `InvalidArgument`, with the path of the field.
fn inputs(input: TextOr<InputItem>) -> Result<Vec<Message>> {
    let list = match input {
        TextOr::Text(text) => return Ok(vec![Message::user(text)]),
        TextOr::List(list) => list,
    };
    if !(1..=MAX_INPUTS).contains(&list.len()) {
        return Err(Error::invalid("input", format!("input: has {} entries; 1 to {MAX_INPUTS} are taken", list.len())));
    }
    let texts = matches!(list.first(), Some(OneOf::Text(_)));
    let (mut messages, mut parts) = (Vec::new(), Vec::new());
    for (index, item) in list.into_iter().enumerate() {
        match item {
            OneOf::Text(text) if texts => messages.push(Message::user(text)),
            OneOf::Object(part) if !texts => parts.push(part.into_proto(&format!("input[{index}]"))?),
            OneOf::Text(_) | OneOf::Object(_) => {
                let path = format!("input[{index}]");
                let message = format!("{path}: a list holds either texts or objects with a type");
                return Err(Error::invalid(path, message).with_reason("invalid_type"));
            }
        }
    }
    if !parts.is_empty() {
        messages.push(Message::new(Role::User, parts));
    }
    Ok(messages)
}

impl ModerationPart {
    fn into_proto(self, path: &str) -> Result<Part> {
        let missing = |field: &str| {
            let path = format!("{path}.{field}");
            Error::invalid(&path, format!("{path}: missing field")).with_reason("missing_field")
        };
        match self.r#type.as_str() {
            "text" => self.text.map(Part::text).ok_or_else(|| missing("text")),
            "image_url" => {
                let url = self.image_url.ok_or_else(|| missing("image_url"))?.url;
                Ok(Part::image(Image { source: Some(Source::Url(url)), media_type: String::new() }))
            }
            other => {
                let path = format!("{path}.type");
                Err(Error::invalid(&path, format!("{path}: {other:?} is neither text nor image_url")).with_reason("invalid_type"))
            }
        }
    }
}

async fn judge(safety: &dyn Safety, cx: &Context, shield: &Shield, message: Message) -> Result<ModerationResult> {
    let types = applied(&message);
    let request =
        RunShieldRequest { shield_id: shield.id.clone(), messages: vec![message], stage: ShieldStage::Input.into(), ..Default::default() };
    Ok(ModerationResult::new(shield, &safety.run_shield(cx, request).await?, &types))
}

fn applied(message: &Message) -> Vec<&'static str> {
    let has = |wanted: fn(&Content) -> bool| message.parts.iter().filter_map(|part| part.content.as_ref()).any(wanted);
    let kinds =
        [("text", has(|content| matches!(content, Content::Text(_)))), ("image", has(|content| matches!(content, Content::Image(_))))];
    kinds.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

/// Why: a text may be flagged with no category at all, where the shield's model gave no verdict.
fn metadata(verdict: &RunShieldResponse) -> Map<String, Value> {
    let mut metadata = Map::new();
    if let Some(violation) = &verdict.violation {
        let level = if violation.level() == Level::Warn { "warn" } else { "error" };
        metadata.insert("reason".into(), violation.reason.as_str().into());
        metadata.insert("level".into(), level.into());
    }
    if verdict.unscored {
        metadata.insert("unscored".into(), true.into());
    }
    metadata
}

impl ModerationResult {
    fn new(shield: &Shield, verdict: &RunShieldResponse, types: &[&'static str]) -> Self {
        // What is redacted would have been let through without it.
        let flagged = verdict.violation.is_some() || verdict.redacted.is_some();
        let words = verdict.violation.as_ref().map(|violation| violation.user_message.clone());
        let mut result = Self {
            flagged,
            categories: BTreeMap::new(),
            category_scores: BTreeMap::new(),
            category_applied_input_types: BTreeMap::new(),
            user_message: words.filter(|words| !words.is_empty()),
            metadata: metadata(verdict),
        };
        for category in &shield.categories {
            result.enter(&category.code, 0.0, false, types);
        }
        for score in &verdict.scores {
            result.enter(&score.code, score.score, score.violated, types);
        }
        let listed = verdict.violation.iter().flat_map(|violation| &violation.categories);
        for code in listed.chain(verdict.findings.iter().map(|finding| &finding.code)) {
            let scored = result.category_scores.get(code).copied().filter(|score| *score > 0.0);
            result.enter(code, scored.unwrap_or(1.0), true, types);
        }
        for name in names::OPENAI {
            let own: Vec<&str> = names::own(shield, name).collect();
            let score = own.iter().filter_map(|code| result.category_scores.get(*code)).copied().fold(0.0, f32::max);
            let violated = own.iter().any(|code| result.categories.get(*code).copied().unwrap_or_default());
            let judged = result.categories.contains_key(name) || !own.is_empty();
            result.enter(name, score, violated, if judged { types } else { &[] });
        }
        result
    }

    /// The greater score, and violated where it ever was.
    fn enter(&mut self, name: &str, score: f32, violated: bool, types: &[&'static str]) {
        *self.categories.entry(name.to_owned()).or_default() |= violated;
        let there = self.category_scores.entry(name.to_owned()).or_default();
        *there = there.max(score);
        self.category_applied_input_types.entry(name.to_owned()).or_insert_with(|| types.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<usize>, String> {
        let input = serde_json::from_str(json).map_err(|error: serde_json::Error| error.to_string())?;
        let messages = inputs(input).map_err(|error| error.field().unwrap_or_default().to_owned())?;
        Ok(messages.iter().map(|message| message.parts.len()).collect())
    }

    #[test]
    fn every_form_of_an_input_is_read() {
        assert_eq!(read(r#""a""#).unwrap(), [1]);
        assert_eq!(read(r#"["a","b"]"#).unwrap(), [1, 1], "two inputs");
        let parts = r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,"}}]"#;
        assert_eq!(read(parts).unwrap(), [2], "one input of two parts");
        assert_eq!(read("[]").unwrap_err(), "input");
        assert_eq!(read(r#"["a",{"type":"text","text":"b"}]"#).unwrap_err(), "input[1]");
        assert_eq!(read(r#"[{"type":"text"}]"#).unwrap_err(), "input[0].text");
        assert_eq!(read(r#"[{"type":"audio"}]"#).unwrap_err(), "input[0].type");
        assert!(read("[7]").unwrap_err().contains("a string or an object"));
    }
}
