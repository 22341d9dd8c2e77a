//! The documents of a bank and what they were made of: looked at, and brought into line in a copy.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use llama_stack_core::{Code, Error, Memory, Result};
use llama_stack_proto::v1::{
    Bank, ContentPart, DeleteDocumentsRequest, Document, DocumentStatus, GetDocumentRequest, InsertChunksRequest, ListDocumentsRequest,
    content_part::Part, document::Content,
};
use sha2::{Digest as _, Sha256};

use super::{PAGE, differs};

/// The reason where a bank is left as it is, and the others are not.
pub(super) const NOT_INSERTED: &str = "not_inserted";
/// Bytes of a content's part, and after which chunks and documents are sent; a message has 64 MiB.
pub(super) const AT_ONCE: usize = 8 << 20;
/// By which a part of a text can be longer: no letter is cut.
const LETTER: usize = 3;

/// What is known of a document, with a part of its content; `None` where it is gone.
pub(super) async fn got(memory: &Arc<dyn Memory>, bank: &Bank, id: &str, offset: u64) -> Result<Option<Document>> {
    let (bank_id, document_id) = (bank.id.clone(), id.to_owned());
    let request = GetDocumentRequest { bank_id, document_id, content_offset: offset, content_bytes: AT_ONCE as u64 };
    match memory.get_document(&crate::caller::caller(), request).await {
        Ok(document) => Ok(Some(document)),
        Err(error) if matches!(error.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn bytes_of(content: &Content) -> &[u8] {
    match content {
        Content::Text(text) | Content::FileId(text) => text.as_bytes(),
        Content::Data(data) => data,
    }
}

/// What is known of a bank's documents, without their contents; nothing where its provider lists none.
pub(super) async fn documents(memory: &Arc<dyn Memory>, bank: &Bank) -> Result<Vec<Document>> {
    let mut request = ListDocumentsRequest { bank_id: bank.id.clone(), page_size: PAGE, ..ListDocumentsRequest::default() };
    let mut documents = Vec::new();
    loop {
        let page = match memory.list_documents(&crate::caller::caller(), request.clone()).await {
            Err(error) if error.code() == Code::Unimplemented => return Ok(documents),
            page => page?,
        };
        documents.extend(page.documents);
        if page.next_page_token.is_empty() {
            return Ok(documents);
        }
        request.page_token = page.next_page_token;
    }
}

/// One that waits has no chunks yet, or those of what it was before. One whose insertion failed or was cancelled is nowhere but in
/// the original, where it may stay if that does.
pub(super) fn finished(documents: &[Document], remove: bool) -> Result<()> {
    let is_left = |document: &&Document| match document.status() {
        DocumentStatus::Completed => false,
        DocumentStatus::InProgress => true,
        _ => remove,
    };
    documents.iter().find(is_left).map_or(Ok(()), |document| Err(not_inserted(&document.id)))
}

fn not_inserted(id: &str) -> Error {
    Error::failed_precondition(format!("document {id:?} is not inserted: wait, insert it again or delete it")).with_reason(NOT_INSERTED)
}

/// Deletes from the copy what the original has otherwise by now, or no more: chunks of before would stay, and a longer content would
/// not fit. What a run that broke off has of a content has no hash, and is no other for that.
///
/// # Errors
/// `Aborted` the original is to be removed, and somebody may have written to the copy (`copy_differs`).
pub(super) async fn forget_others(memory: &Arc<dyn Memory>, bank: &Bank, originals: &[Document], copy: &Bank, remove: bool) -> Result<()> {
    let copied: HashMap<String, Document> =
        documents(memory, copy).await?.into_iter().map(|document| (document.id.clone(), document)).collect();
    let is_other = |document: &&Document| {
        let Some(copied) = copied.get(&document.id) else { return false };
        let is_made_of_another = match (document.sha256.is_empty(), copied.sha256.is_empty()) {
            (true, _) => false,
            (false, true) => copied.bytes != document.bytes,
            (false, false) => copied.sha256 != document.sha256,
        };
        let is_told_otherwise =
            copied.title != document.title || copied.attributes != document.attributes || copied.expires != document.expires;
        // A copy may count more: of chunks without a source, those that came together.
        is_made_of_another || is_told_otherwise || copied.bytes < document.bytes
    };
    let mut others: Vec<String> = originals.iter().filter(is_other).map(|document| document.id.clone()).collect();
    // Chunks without any document: their provider lists none.
    if !originals.is_empty() || bank.chunk_count == 0 {
        let there: HashSet<&str> = originals.iter().map(|document| document.id.as_str()).collect();
        others.extend(copied.keys().filter(|id| !there.contains(id.as_str())).cloned());
    }
    if let (Some(first), true) = (others.first(), remove) {
        let count = others.len();
        let message = format!(
            "{count} documents are others in the copy, or in it alone, the first {first:?}: run it without --remove to bring it into line, \
             which loses what the copy has of them"
        );
        return Err(Error::new(Code::Aborted, message).with_reason("copy_differs"));
    }
    for some in others.chunks(PAGE as usize) {
        let request = DeleteDocumentsRequest { bank_id: copy.id.clone(), document_ids: some.to_vec(), ..DeleteDocumentsRequest::default() };
        memory.delete_documents(&crate::caller::caller(), request).await?;
    }
    Ok(())
}

/// Brings what the copy's documents were made of into line with the originals', and adds it to the hash.
pub(super) async fn contents(memory: &Arc<dyn Memory>, bank: &Bank, copy: &Bank, remove: bool, hash: &mut Sha256) -> Result<()> {
    // Listed again: what came meanwhile is not in the copy.
    let originals = documents(memory, bank).await?;
    finished(&originals, remove)?;
    for Document { id, .. } in &originals {
        if !content(memory, bank, copy, id, hash).await? && remove {
            return Err(not_inserted(id));
        }
    }
    Ok(())
}

/// Whether the copy has it, if the original has any: a document without chunks is not in the copy.
async fn content(memory: &Arc<dyn Memory>, bank: &Bank, copy: &Bank, id: &str, hash: &mut Sha256) -> Result<bool> {
    let mut offset = 0;
    loop {
        let Some(Document { content: Some(original), .. }) = got(memory, bank, id, offset).await? else { return Ok(true) };
        let Some(copied) = got(memory, copy, id, offset).await? else { return Ok(false) };
        if copied.content.as_ref() != Some(&original) {
            let part = match original.clone() {
                Content::Text(text) => Part::Text(text),
                Content::Data(data) => Part::Data(data),
                Content::FileId(file) => return Err(differs(&format!("document {id:?} was made of file {file:?}"))),
            };
            let content_parts = vec![ContentPart { document_id: id.to_owned(), offset, part: Some(part) }];
            let request = InsertChunksRequest { bank_id: copy.id.clone(), content_parts, ..InsertChunksRequest::default() };
            memory.insert_chunks(&crate::caller::caller(), request).await?;
            let copied = got(memory, copy, id, offset).await?.and_then(|document| document.content);
            if copied.as_ref() != Some(&original) {
                return Err(differs(&format!("document {id:?} was made of something else")));
            }
        }
        let bytes = bytes_of(&original);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
        // One that knows no parts gives it all at once.
        if !(AT_ONCE..=AT_ONCE + LETTER).contains(&bytes.len()) {
            return Ok(true);
        }
        offset += bytes.len() as u64;
    }
}
