//! `/v1/chat/completions`.

mod message;
mod request;
mod response;
mod stream;
mod tools;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};

pub(crate) use message::RequestMessage;
pub(crate) use request::CreateChat;
pub(crate) use response::{Completion, finish};
pub(crate) use stream::Chunk;

use super::{fields, sse};
use crate::http::{ApiError, AppState, Caller, Json};

pub(crate) async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(mut body): Json<CreateChat>,
) -> Result<Response, ApiError> {
    body.read_files(&state, &cx).await?;
    let (streams, usage, limit) = (body.streams()?, body.include_usage(), body.limit());
    let request = body.into_proto()?;
    let model = request.model.clone();
    let renamed = move |error| fields::of_chat(error, limit);
    if streams {
        let events = cx.within(state.inference.stream_chat(&cx, request)).await.map_err(renamed)?;
        let events = events.map_err(renamed).boxed();
        return Ok(sse::respond(cx, events, stream::Chunks::new(model, usage)).await?);
    }
    let response = cx.within(state.inference.chat(&cx, request)).await.map_err(renamed)?;
    Ok(Json(Completion::new(response, model)).into_response())
}
