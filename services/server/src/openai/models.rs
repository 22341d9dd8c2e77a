use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::Serialize;

use llama_stack_core::ids::unix_seconds;
use llama_stack_proto::v1::{GetModelRequest, ListModelsRequest, Model};

use crate::http::{ApiError, AppState, Caller, Json};

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
}

impl From<Model> for ModelObject {
    fn from(model: Model) -> Self {
        Self { created: unix_seconds(model.created.as_ref()), id: model.id, object: "model", owned_by: model.provider_id }
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
