//! The OpenAI API: its wire types, and handlers that turn them into calls.
//!
//! ```text
//! chat/  completions/  embeddings  models     views of Inference
//! responses/  conversations                   views of Agents: a Response is a turn, a Conversation a session
//! moderations                                 view of Safety
//! prompts                                     view of Prompts
//! files/                                      view of Files
//! batches                                     view of Batches, whose lines ask the routes above
//! vector_stores/                              view of Memory: a vector store is a bank
//! rerank                                      view of Inference
//! sse                                         events on the wire
//! ```

pub(crate) mod batches;
pub(crate) mod chat;
mod completions;
mod conversations;
mod embeddings;
mod fields;
pub(crate) mod files;
mod format;
mod generation;
pub(crate) mod input_files;
mod logprobs;
mod models;
mod moderations;
mod one_or_many;
mod prompts;
mod rerank;
pub(crate) mod responses;
mod sse;
mod usage;
pub(crate) mod vector_stores;

use axum::routing::{get, post};
use llama_stack_core::ids;

use crate::openapi::{Api, Operation, route};

pub(crate) use responses::{
    no_conversation,
    response::{conversation_id, response_id, session_id, turn_id},
};

pub(crate) fn routes(api: &mut Api) {
    api.post(
        route!("/v1/chat/completions"),
        post(chat::create),
        Operation::new("Answers a conversation.").takes::<chat::CreateChat>().returns::<chat::Completion>().streams::<chat::Chunk>(),
    );
    api.post(
        route!("/v1/completions"),
        post(completions::create),
        Operation::new("Continues a text.")
            .takes::<completions::CreateCompletion>()
            .returns::<completions::Completion>()
            .streams::<completions::Completion>(),
    );
    api.post(
        route!("/v1/embeddings"),
        post(embeddings::create),
        Operation::new("A vector per input.").takes::<embeddings::CreateEmbedding>().returns::<embeddings::EmbeddingList>(),
    );
    api.get(route!("/v1/models"), get(models::list), Operation::new("The models that can be asked for.").returns::<models::ModelList>());
    api.get(route!("/v1/models/{*model}"), get(models::retrieve), Operation::new("One model.").returns::<models::ModelObject>());

    api.post(
        route!("/v1/moderations"),
        post(moderations::create),
        Operation::new("Judges texts by a shield.").takes::<moderations::CreateModeration>().returns::<moderations::Moderation>(),
    );

    responses::routes(api);
    conversations::routes(api);
    prompts::routes(api);
    files::routes(api);
    batches::routes(api);
    vector_stores::routes(api);
    rerank::routes(api);
}

/// `<prefix>-<32 hexadecimal digits>`, as this API writes the ids of what it does not keep.
fn new_id(prefix: &str) -> String {
    ids::new(prefix).replacen('_', "-", 1)
}

/// Seconds since the epoch.
fn now() -> i64 {
    ids::now().seconds
}

/// `system_fingerprint`: the build that answers.
const FINGERPRINT: &str = concat!("llama-stack-", env!("CARGO_PKG_VERSION"));
