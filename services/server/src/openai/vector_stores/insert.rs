//! Files on their way into a bank: as a new store, one by one, or as a batch.

use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{Document, GetFileRequest, Ingestion, InsertDocumentsRequest, document::Content};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    attributes,
    chunking::{self, Chunking},
    ids::no_store,
};
use crate::http::AppState;

/// Of files that come at once: the OpenAI API's bound.
const MAX_FILES: usize = 2_000;

/// A file to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AddFile")]
pub(super) struct AddFile {
    pub(super) file_id: String,
    /// At most 16 pairs, for filters: texts, numbers, truth values.
    pub(super) attributes: Option<Map<String, Value>>,
    pub(super) chunking_strategy: Option<Chunking>,
}

/// The documents that files become; each must be there.
///
/// # Errors
/// `InvalidArgument` with the field's path · `NotFound` for a file that is not there.
pub(super) async fn documents(state: &AppState, cx: &Context, files: Vec<(String, AddFile)>) -> Result<Vec<Document>> {
    if files.len() > MAX_FILES {
        return Err(Error::invalid("file_ids", format!("at most {MAX_FILES} files come at once, not {}", files.len())));
    }
    let mut documents = Vec::with_capacity(files.len());
    for (field, given) in files {
        let of = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
        let attributes = attributes::read(&of("attributes"), given.attributes.as_ref())?;
        let chunking = chunking::read(&of("chunking_strategy"), given.chunking_strategy.as_ref())?;
        let file = state.files.get_file(cx, GetFileRequest { id: given.file_id.clone() }).await;
        let file = file.map_err(|error| match error.code() {
            Code::NotFound => {
                let at = if field.starts_with("file_ids[") { field.clone() } else { of("file_id") };
                Error::not_found(format!("no file {:?}", given.file_id)).with_reason("file_not_found").with_field(at)
            }
            _ => error,
        })?;
        documents.push(Document {
            id: given.file_id.clone(),
            content: Some(Content::FileId(given.file_id)),
            media_type: file.media_type,
            title: file.filename,
            attributes,
            chunking,
            ..Document::default()
        });
    }
    Ok(documents)
}

/// Has documents inserted in the background.
///
/// # Errors
/// `NotFound` for the store · those of `InsertDocuments`.
pub(super) async fn begin(state: &AppState, cx: &Context, store: &str, bank_id: &str, documents: Vec<Document>) -> Result<Ingestion> {
    let request = InsertDocumentsRequest { bank_id: bank_id.to_owned(), documents, background: true, ..InsertDocumentsRequest::default() };
    let answer = state.memory.insert_documents(cx, request).await.map_err(|error| no_store(error, store))?;
    answer.ingestion.ok_or_else(|| Error::internal("the memory provider did not say how the insertion goes on"))
}
