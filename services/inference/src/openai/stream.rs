//! A streamed answer: bytes → server-sent events → chunks → events. Dropping it closes the upstream's connection.

use std::{sync::Arc, time::Duration};

use reqwest::{Response, header::CONTENT_TYPE};

use llama_stack_core::{EventStream, Result};
use llama_stack_proto::v1::ChatEvent;

use super::{
    events::Answers,
    failure::{self, Name},
    sse::{Decoder, Event},
    upstream::{Limit, Upstream},
    wire::Chunk,
};

/// After the last event, the end of the body is waited for so long: a body read to its end leaves its connection to the next
/// request, and the end is nearly always in the same packet.
const END_WITHIN: Duration = Duration::from_millis(50);

/// Reads `response` as the answer to a request for `n` answers.
pub(super) fn events(upstream: Arc<Upstream>, mut response: Response, limit: Limit, n: u32) -> EventStream<ChatEvent> {
    Box::pin(async_stream::try_stream! {
        let (mut answers, mut out) = (Answers::new(n), Vec::new());
        if is_json(&response) {
            // Asked for a stream, some answer whole.
            let body = upstream.whole(response, limit).await?;
            whole(&upstream.name, &body, &mut answers, &mut out)?;
            for event in out {
                yield event;
            }
            return;
        }
        let mut decoder = Decoder::default();
        let mut first = true;
        'body: loop {
            let chunk = match upstream.chunk(&mut response, limit, first).await {
                Ok(chunk) => chunk,
                // All was said but the end.
                Err(_) if answers.all_finished() => None,
                Err(error) => Err(error)?,
            };
            first = false;
            let ended = chunk.is_none();
            if let Some(chunk) = chunk {
                decoder.push(chunk)?;
            }
            while let Some(event) = decoder.next().or_else(|| if ended { decoder.end() } else { None }) {
                let done = take(&upstream.name, &event, &mut answers, &mut out)?;
                for event in out.drain(..) {
                    yield event;
                }
                if done {
                    break 'body;
                }
            }
            if ended {
                answers.end(&upstream.name, false, &mut out)?;
                break;
            }
        }
        for event in out.drain(..) {
            yield event;
        }
        let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
        let _ = tokio::time::timeout(END_WITHIN, rest).await;
    })
}

/// Events of a whole answer.
///
/// # Errors
/// `Unavailable` for what is no answer, or one that is not done.
pub(super) fn whole(name: &Name, body: &[u8], answers: &mut Answers, out: &mut Vec<ChatEvent>) -> Result<()> {
    chunk(name, body, answers, out)?;
    answers.end(name, true, out)
}

/// True after the event that says that there is no more.
pub(super) fn take(name: &Name, event: &Event, answers: &mut Answers, out: &mut Vec<ChatEvent>) -> Result<bool> {
    let data = event.data.trim_ascii();
    if event.error {
        return Err(name.in_stream(data));
    }
    if data == b"[DONE]" {
        answers.end(name, true, out)?;
        return Ok(true);
    }
    if !data.is_empty() {
        chunk(name, data, answers, out)?;
    }
    Ok(false)
}

fn chunk(name: &Name, data: &[u8], answers: &mut Answers, out: &mut Vec<ChatEvent>) -> Result<()> {
    let chunk: Chunk = serde_json::from_slice(data).map_err(|error| name.malformed(place(&error)).with_source(error))?;
    // An object with neither choices nor usage may be an error without its wrapper, as old vLLM sends it.
    let failed = chunk.error.is_some() || (chunk.choices.is_none() && chunk.usage.is_none() && failure::tells(data));
    if failed {
        return Err(name.in_stream(data));
    }
    answers.take(name, chunk, out)
}

/// Where JSON is wrong, without the words, which are the user's or the model's.
fn place(error: &serde_json::Error) -> String {
    format!("JSON that ends or errs at line {} column {}", error.line(), error.column())
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}
