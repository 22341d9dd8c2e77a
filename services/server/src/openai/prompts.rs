//! `/v1/prompts`: instructions that are kept by name, with versions and variables.

use std::collections::{BTreeMap, HashMap};

use axum::{
    extract::State,
    routing::{get, post},
};
use llama_stack_agents::render_prompt;
use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{
    self, CreatePromptRequest, DeletePromptRequest, GetPromptRequest, ListPromptVersionsRequest, ListPromptsRequest,
    SetDefaultPromptVersionRequest, UpdatePromptRequest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

/// How a request names a prompt.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct PromptReference {
    id: String,
    /// A number. Default: the default version.
    version: Option<Value>,
    /// Texts, or `{type: input_text, text}`.
    variables: Option<BTreeMap<String, Value>>,
}

/// A prompt that has become instructions.
pub(crate) struct Filled {
    pub(crate) text: String,
    /// The reference as JSON, with the version that was used.
    pub(crate) reference: String,
}

/// # Errors
/// `NotFound` no such prompt or version · `InvalidArgument` variables without values, values without variables ·
/// `Unimplemented` values that are no texts.
pub(super) async fn fill(state: &AppState, cx: &Context, reference: PromptReference) -> Result<Filled> {
    let version = reference.version.as_ref().map_or(Ok(0), version)?;
    let found = state.prompts.get_prompt(cx, GetPromptRequest { id: reference.id, version }).await;
    let prompt = found.map_err(|error| error.with_field("prompt"))?;
    let mut values = HashMap::new();
    for (name, value) in reference.variables.unwrap_or_default() {
        values.insert(name.clone(), variable(&name, value)?);
    }
    let text = render_prompt(&prompt, &values).map_err(|error| error.with_field("prompt.variables"))?;
    let values: BTreeMap<String, String> = values.into_iter().collect();
    let reference = json!({ "id": prompt.id, "version": prompt.version.to_string(), "variables": values }).to_string();
    Ok(Filled { text, reference })
}

/// OpenAI's versions are texts.
fn version(version: &Value) -> Result<u32> {
    let number = match version {
        Value::Null => return Ok(0),
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    number.filter(|number| *number > 0).ok_or_else(|| Error::invalid("prompt.version", "prompt.version must be a number from 1"))
}

fn variable(name: &str, value: Value) -> Result<String> {
    let field = format!("prompt.variables.{name}");
    match value {
        Value::String(text) => Ok(text),
        Value::Object(part) => match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Some("input_text"), Some(text)) => Ok(text.to_owned()),
            (Some(kind @ ("input_image" | "input_file")), _) => {
                Err(Error::new(Code::Unimplemented, format!("variables of type {kind:?} are not supported yet")).with_field(field))
            }
            _ => Err(Error::invalid(field, "a variable must be a text, or {\"type\": \"input_text\", \"text\": …}")),
        },
        _ => Err(Error::invalid(field, "a variable must be a text, or {\"type\": \"input_text\", \"text\": …}")),
    }
}

pub(super) fn routes(api: &mut Api) {
    let (all, one) = (route!("/v1/prompts"), route!("/v1/prompts/{id}"));
    api.post(all, post(create).get(list), Operation::new("Keeps a prompt, as its version 1.").takes::<CreatePrompt>().returns::<Prompt>());
    api.describe(all, "get", Operation::new("The default version of every prompt, newest prompt first.").returns::<PromptList>());
    api.get(
        one,
        get(retrieve).post(update).delete(delete),
        Operation::new("A prompt; the default version, or `version`.").returns::<Prompt>(),
    );
    api.describe(one, "post", Operation::new("Adds a version.").takes::<UpdatePrompt>().returns::<Prompt>());
    api.describe(one, "delete", Operation::new("Deletes a prompt with all its versions.").returns::<Deleted>());
    api.get(
        route!("/v1/prompts/{id}/versions"),
        get(versions),
        Operation::new("The versions of a prompt, newest first.").returns::<PromptList>(),
    );
    api.post(
        route!("/v1/prompts/{id}/set-default-version"),
        post(set_default),
        Operation::new("Makes a version the default one.").takes::<DefaultVersion>().returns::<Prompt>(),
    );
}

#[derive(Debug, Serialize, JsonSchema)]
struct Prompt {
    object: &'static str,
    prompt_id: String,
    version: u32,
    prompt: String,
    variables: Vec<String>,
    is_default: bool,
    created_at: i64,
}

impl From<v1::Prompt> for Prompt {
    fn from(prompt: v1::Prompt) -> Self {
        Self {
            object: "prompt",
            created_at: ids::unix_seconds(prompt.created.as_ref()),
            prompt_id: prompt.id,
            version: prompt.version,
            prompt: prompt.text,
            variables: prompt.variables,
            is_default: prompt.is_default,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CreatePrompt {
    /// The text; `{{ name }}` stands for the variable `name`.
    prompt: String,
    /// Must be those of the text. Default: taken from there.
    #[serde(default)]
    variables: Vec<String>,
}

async fn create(State(state): State<AppState>, Caller(cx): Caller, Json(body): Json<CreatePrompt>) -> Result<Json<Prompt>, ApiError> {
    let request = CreatePromptRequest { text: body.prompt, variables: body.variables };
    Ok(Json(state.prompts.create_prompt(&cx, request).await.map_err(renamed)?.into()))
}

/// The text is called `prompt` here.
fn renamed(error: Error) -> Error {
    if error.field() == Some("text") { error.with_field("prompt") } else { error }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ListQuery {
    #[serde(default)]
    limit: u32,
    /// `next_page_token` of the page before.
    #[serde(default)]
    page_token: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PromptList {
    object: &'static str,
    data: Vec<Prompt>,
    has_more: bool,
    /// Empty on the last page.
    next_page_token: String,
}

impl From<v1::ListPromptsResponse> for PromptList {
    fn from(list: v1::ListPromptsResponse) -> Self {
        let (has_more, data) = (!list.next_page_token.is_empty(), list.prompts.into_iter().map(Prompt::from).collect());
        Self { object: "list", data, has_more, next_page_token: list.next_page_token }
    }
}

async fn list(State(state): State<AppState>, Caller(cx): Caller, Query(query): Query<ListQuery>) -> Result<Json<PromptList>, ApiError> {
    let request = ListPromptsRequest { page_size: query.limit, page_token: query.page_token };
    Ok(Json(state.prompts.list_prompts(&cx, request).await?.into()))
}

async fn versions(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<PromptList>, ApiError> {
    let request = ListPromptVersionsRequest { id, page_size: query.limit, page_token: query.page_token };
    Ok(Json(state.prompts.list_prompt_versions(&cx, request).await?.into()))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct VersionQuery {
    #[serde(default)]
    version: u32,
}

async fn retrieve(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Prompt>, ApiError> {
    Ok(Json(state.prompts.get_prompt(&cx, GetPromptRequest { id, version: query.version }).await?.into()))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct UpdatePrompt {
    prompt: String,
    #[serde(default)]
    variables: Vec<String>,
    /// The newest version that the client has seen: where there is a newer one, nothing is changed.
    version: u32,
    /// Default true.
    set_as_default: Option<bool>,
}

async fn update(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<UpdatePrompt>,
) -> Result<Json<Prompt>, ApiError> {
    let set_default = body.set_as_default.unwrap_or(true);
    let request = UpdatePromptRequest { id, text: body.prompt, variables: body.variables, version: body.version, set_default };
    Ok(Json(state.prompts.update_prompt(&cx, request).await.map_err(renamed)?.into()))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DefaultVersion {
    version: u32,
}

async fn set_default(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
    Json(body): Json<DefaultVersion>,
) -> Result<Json<Prompt>, ApiError> {
    let request = SetDefaultPromptVersionRequest { id, version: body.version };
    Ok(Json(state.prompts.set_default_prompt_version(&cx, request).await?.into()))
}

#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

async fn delete(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    state.prompts.delete_prompt(&cx, DeletePromptRequest { id: id.clone() }).await?;
    Ok(Json(Deleted { id, object: "prompt.deleted", deleted: true }))
}
