//! `/v1/vector_stores`: a vector store is a bank of kind vector, and a file in it is a document that has the file's id.
//!
//! ```text
//! stores ── CreateBank … DeleteBank           files ──── InsertDocuments (in the background), ListDocuments …
//! search ── Query                             batches ── an ingestion: GetIngestion, CancelIngestion
//! filters, ranking, chunking, attributes: what both this and `file_search` of the Responses API say in JSON
//! ```

mod attributes;
mod batches;
mod chunking;
mod files;
pub(crate) mod filters;
pub(crate) mod ids;
mod insert;
mod page;
pub(crate) mod ranking;
mod search;
mod stores;

pub(crate) use ids::bank_id;
pub(crate) use search::mode;

use axum::routing::{get, post};

use crate::openapi::{Api, Operation, route};

pub(super) fn routes(api: &mut Api) {
    stores::routes(api);
    files::routes(api);
    batches::routes(api);
    api.post(
        route!("/v1/vector_stores/{id}/search"),
        post(search::search),
        Operation::new("Searches a vector store.").takes::<search::Search>().returns::<search::Results>(),
    );
    let content = route!("/v1/vector_stores/{id}/files/{file_id}/content");
    api.get(content, get(files::content), Operation::new("The text of a file, as it is searched.").returns::<files::Content>());
}
