//! Summaries of a history: an item that stands for what was before it, and the endpoint that makes one.

use axum::extract::State;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use llama_stack_core::{Error, Result, ids};
use llama_stack_proto::v1::{CompactRequest, CompactionStep, Message, Part, Role};
use prost::Message as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    find,
    input::{self, Input},
    items::Item,
    look_up,
    response::usage,
};
use crate::{
    http::{ApiError, AppState, Caller, Json},
    openai::input_files,
};

/// What stands before a summary, so that a model knows what it reads. The words are a user's: what a model wrote, of texts
/// that may have come from anywhere, must not become instructions.
const PREFACE: &str = "A summary of the conversation before this point:\n\n";

/// The summary and the messages that were kept beside it, as one text.
pub(crate) fn write(step: &CompactionStep) -> String {
    URL_SAFE_NO_PAD.encode(step.encode_to_vec())
}

/// The messages that a summary stands for.
///
/// # Errors
/// `InvalidArgument` for what this stack has not written.
pub(crate) fn read(field: &str, content: &str) -> Result<Vec<Message>> {
    let step = URL_SAFE_NO_PAD.decode(content).ok().and_then(|bytes| CompactionStep::decode(bytes.as_slice()).ok());
    let step = step.filter(|step| !step.summary.is_empty());
    let crooked = || Error::invalid(format!("{field}.encrypted_content"), "encrypted_content is not one that this stack has written");
    let step = step.ok_or_else(crooked)?;
    let summary = Part::text(format!("{PREFACE}{}", step.summary)).with_provenance(label(&step.provenance));
    let summary = Message::new(Role::User, vec![summary]);
    Ok(std::iter::once(summary).chain(step.kept).collect())
}

/// Where a summary comes from: from outside, if anything that it was made of does. Of several sources it is none of them,
/// and so of one that is not known, which policies trust least.
fn label(provenance: &[String]) -> String {
    let mut outside = provenance.iter().filter(|label| label.starts_with("tool:") || label.starts_with("retrieved:"));
    match (outside.next(), outside.next()) {
        (None, _) => Role::User.provenance().to_owned(),
        (Some(only), None) => only.clone(),
        (Some(_), Some(_)) => "tool:several".to_owned(),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CompactHistory {
    model: String,
    /// The history, or `previous_response_id`.
    input: Option<Input>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Compacted {
    id: String,
    object: &'static str,
    created_at: i64,
    /// To be the beginning of the next input.
    output: Vec<Item>,
    usage: Value,
}

pub(crate) async fn compact(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CompactHistory>,
) -> Result<Json<Compacted>, ApiError> {
    let mut request =
        CompactRequest { model: body.model, instructions: body.instructions.unwrap_or_default(), ..CompactRequest::default() };
    match (body.input, body.previous_response_id) {
        (Some(mut given), None) => {
            if let Input::Items(items) = &mut given {
                look_up(&state, &cx, "input", items, ("", "")).await?;
                input_files::read(&state, &cx, "input", items).await?;
            }
            request.messages = input::read(given)?.messages;
        }
        (None, Some(previous)) => request.turn_id = find(&state, &cx, &previous).await?.id,
        _ => return Err(Error::invalid("input", "bring either input or previous_response_id").into()),
    }
    let step = state.agents.compact(&cx, request).await?.compaction.unwrap_or_default();
    let item = Item::Compaction { id: ids::new("cmp"), encrypted_content: write(&step) };
    Ok(Json(Compacted {
        id: ids::new("resp"),
        object: "response.compaction",
        created_at: ids::now().seconds,
        output: vec![item],
        usage: usage(&step.usage.unwrap_or_default(), step.cost),
    }))
}
