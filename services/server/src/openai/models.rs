use std::collections::BTreeMap;

use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_core::ids::unix_seconds;
use llama_stack_proto::v1::{GetModelRequest, ListModelsRequest, Model, ModelKind};

use crate::http::{ApiError, AppState, Caller, Json, Path};

#[derive(Serialize, JsonSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct ModelObject {
    id: String,
    object: &'static str,
    /// Seconds since the epoch.
    created: i64,
    /// The provider that serves it.
    owned_by: String,
    /// Not OpenAI's, as all that follows: `chat`, `embedding`, `classifier` or `reranker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// Tokens of prompt and answer together.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
    /// Of an embedding model's vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_dimension: Option<u32>,
    /// For people, for example the engine and why it was chosen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl From<Model> for ModelObject {
    fn from(model: Model) -> Self {
        let kind = model.kind();
        Self {
            created: unix_seconds(model.created.as_ref()),
            id: model.id,
            object: "model",
            owned_by: model.provider_id,
            kind: (kind != ModelKind::Unspecified).then(|| kind.as_str_name().trim_start_matches("MODEL_KIND_").to_lowercase()),
            context_length: (model.context_length > 0).then_some(model.context_length),
            embedding_dimension: (model.embedding_dimension > 0).then_some(model.embedding_dimension),
            metadata: model.metadata.into_iter().collect(),
        }
    }
}

pub(crate) async fn list(State(state): State<AppState>, Caller(cx): Caller) -> Result<Json<ModelList>, ApiError> {
    let (mut data, mut request) = (Vec::new(), ListModelsRequest::default());
    loop {
        let page = cx.within(state.inference.list_models(&cx, request.clone())).await?;
        data.extend(page.models.into_iter().map(ModelObject::from));
        if page.next_page_token.is_empty() {
            return Ok(Json(ModelList { object: "list", data }));
        }
        request.page_token = page.next_page_token;
    }
}

pub(crate) async fn retrieve(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    let model = cx.within(state.inference.get_model(&cx, GetModelRequest { id })).await?;
    Ok(Json(model.into()))
}
