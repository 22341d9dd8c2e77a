//! Doors for fuzzers: bytes of an upstream, however they are cut.

use bytes::Bytes;
use llama_stack_core::Result;
use llama_stack_proto::v1::ChatEvent;

use super::{events::Answers, failure::Name, sse::Decoder, stream};

/// The server-sent events of a stream: whether each is an error, and its data.
///
/// # Errors
/// `Unavailable` for an event beyond all measure.
pub fn events(pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<(bool, Bytes)>> {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece)?;
        events.extend(std::iter::from_fn(|| decoder.next()).map(|event| (event.error, event.data)));
    }
    events.extend(decoder.end().map(|event| (event.error, event.data)));
    Ok(events)
}

/// What an upstream's stream becomes, as the answer to a request for `n` answers.
///
/// # Errors
/// As a chat's: `Unavailable` for what is no answer.
pub fn answers(body: Bytes, n: u32) -> Result<Vec<ChatEvent>> {
    let name = Name { id: "fuzzed".into(), host: "fuzzed".into() };
    let (mut decoder, mut answers, mut out) = (Decoder::default(), Answers::new(n), Vec::new());
    decoder.push(body)?;
    while let Some(event) = decoder.next().or_else(|| decoder.end()) {
        if stream::take(&name, &event, &mut answers, &mut out)? {
            return Ok(out);
        }
    }
    answers.end(&name, false, &mut out)?;
    Ok(out)
}
