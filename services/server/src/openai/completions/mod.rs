//! `/v1/completions`: raw prompts, one or several, `n` answers to each.

mod request;
mod response;
mod stream;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, future, stream as streams};

use llama_stack_core::{Context, EventStream, Result};
use llama_stack_proto::v1::{CompleteEvent, CompleteRequest};

pub(crate) use request::CreateCompletion;
pub(crate) use response::Completion;

use response::Echo;

use super::{fields::of_completion, sse};
use crate::http::{ApiError, AppState, Caller, Json};

/// Prompts of one request that run at once.
const AT_ONCE: usize = 8;

pub(crate) async fn create(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<CreateCompletion>,
) -> Result<Response, ApiError> {
    let (streams, usage) = (body.streams()?, body.include_usage());
    let (model, requests) = (body.model().to_owned(), body.into_protos()?);
    let echoes: Vec<Echo> = requests.iter().map(Echo::of).collect();
    if streams {
        let events = cx.within(merged(&state, &cx, requests)).await.map_err(of_completion)?;
        let events = events.map_err(of_completion).boxed();
        return Ok(sse::respond(cx, events, stream::Pieces::new(model, usage)).await?);
    }
    let calls = requests.into_iter().map(|request| state.inference.complete(&cx, request));
    let responses: Vec<_> = cx.within(streams::iter(calls).buffered(AT_ONCE).try_collect()).await.map_err(of_completion)?;
    Ok(Json(Completion::whole(responses.into_iter().zip(echoes), model)).into_response())
}

/// The events of all prompts, as they come. The choices of the second prompt are numbered after those of the first.
async fn merged(state: &AppState, cx: &Context, requests: Vec<CompleteRequest>) -> Result<EventStream<CompleteEvent>> {
    let begun = requests.into_iter().enumerate().map(async |(prompt, request)| {
        let first = prompt as u32 * request.choices();
        let events = state.inference.stream_complete(cx, request).await?;
        Ok::<_, llama_stack_core::Error>(events.map_ok(move |event| CompleteEvent { choice: first + event.choice, ..event }))
    });
    let begun = future::try_join_all(begun).await?;
    Ok(Box::pin(streams::select_all(begun)))
}
