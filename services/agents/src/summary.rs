//! A summary of a history, for a caller who keeps it themselves.

use llama_stack_core::{Context, Error, Result};
use llama_stack_proto::v1::{CompactRequest, CompactResponse, Message, Turn};

use crate::{compact, conversation, edge, history, runtime::Shared};

/// Tokens that a summary is made to fit in, four times over.
const MOST: usize = 8_192;

pub(crate) async fn compact(shared: &Shared, cx: &Context, request: CompactRequest) -> Result<CompactResponse> {
    if request.model.is_empty() {
        return Err(Error::invalid("model", "model is required: the id of a model"));
    }
    let mut messages = match (request.messages.is_empty(), request.turn_id.is_empty()) {
        (false, true) => {
            let mut messages = request.messages;
            edge::label(&mut messages);
            messages
        }
        (true, false) => whole(shared, cx, &request.turn_id).await?,
        _ => return Err(Error::invalid("messages", "bring messages or name a turn_id, and not both")),
    };
    if !request.instructions.is_empty() {
        messages.insert(0, Message::system(request.instructions));
    }
    let inference = shared.parts.inference.as_ref();
    let tokens = compact::tokens(inference, cx, &request.model, &messages, &[]).await;
    let mut made = compact::summarise(inference, cx, &request.model, &messages, tokens, MOST).await?;
    made.cost = shared.cost(&request.model, made.usage.as_ref());
    Ok(CompactResponse { compaction: Some(made) })
}

/// A turn with all that was before it.
async fn whole(shared: &Shared, cx: &Context, turn_id: &str) -> Result<Vec<Message>> {
    let turn: Turn = shared.load(cx.tenant(), turn_id).await.map_err(|error| error.with_field("turn_id"))?.turn;
    let mut messages = match conversation::compaction(&turn) {
        Some(compaction) => conversation::compacted(compaction),
        None => history::before(shared, cx.tenant(), &turn, None).await?.messages,
    };
    messages.extend(conversation::messages(&turn));
    Ok(messages)
}
