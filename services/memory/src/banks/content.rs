//! Contents that are longer than a message: read and written part by part.

use std::collections::BTreeMap;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ContentPart, DocumentStatus, content_part::Part, document::Content};
use llama_stack_store::{InsertedDocument, KeptDocument};
use sha2::{Digest as _, Sha256};

use super::{
    Banks,
    access::key,
    documents::{no_such_document, replaced},
    source::broke_off,
};

/// Of one call. Those of one document are joined before its content is written again.
pub(super) const MAX_PARTS: usize = 100;

/// What lies from `offset` on, and so many bytes of it; 0: all. Of a file it is the file.
///
/// # Errors
/// `InvalidArgument` an offset beyond the end, or inside a letter.
pub(super) fn part(content: Content, offset: u64, bytes: u64) -> Result<Content> {
    let outside = || Error::invalid("content_offset", "content_offset is beyond the content, or inside a letter of it");
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = if bytes == 0 { usize::MAX } else { start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX)) };
    match content {
        Content::Text(text) => {
            let end = text.ceil_char_boundary(end.min(text.len()));
            text.get(start..end).map(|part| Content::Text(part.to_owned())).ok_or_else(outside)
        }
        Content::Data(data) => data.get(start..end.min(data.len())).map(|part| Content::Data(part.to_vec())).ok_or_else(outside),
        file @ Content::FileId(_) => Ok(file),
    }
}

/// The content with this part in its place; `None` where it does not fit.
fn joined(before: Option<Content>, offset: u64, part: Part) -> Option<Content> {
    let offset = usize::try_from(offset).ok()?;
    Some(match (before, part) {
        (Some(Content::FileId(_)), _) => return None,
        (_, Part::Text(text)) if offset == 0 => Content::Text(text),
        (_, Part::Data(data)) if offset == 0 => Content::Data(data),
        (Some(Content::Text(mut there)), Part::Text(text)) if there.is_char_boundary(offset) => {
            there.truncate(offset);
            there.push_str(&text);
            Content::Text(there)
        }
        (Some(Content::Data(mut there)), Part::Data(data)) if offset <= there.len() => {
            there.truncate(offset);
            there.extend_from_slice(&data);
            Content::Data(there)
        }
        _ => return None,
    })
}

fn bytes_of(content: &Content) -> &[u8] {
    match content {
        Content::Text(text) => text.as_bytes(),
        Content::Data(data) => data.as_slice(),
        Content::FileId(_) => &[],
    }
}

/// By document, each with its place in the request.
pub(super) fn by_document(parts: Vec<ContentPart>) -> BTreeMap<String, Vec<(usize, ContentPart)>> {
    let mut documents = BTreeMap::<String, Vec<(usize, ContentPart)>>::new();
    for (index, part) in parts.into_iter().enumerate() {
        documents.entry(part.document_id.clone()).or_default().push((index, part));
    }
    documents
}

impl Banks {
    /// All parts of one document, or none. It has a hash once its content has all the bytes that it was said to have, so one that is
    /// not complete is taken for no other, nor for one that was changed.
    ///
    /// # Errors
    /// `NotFound` no such document · `InvalidArgument` a part does not fit, or goes beyond the bytes that the document was said to
    /// have · `FailedPrecondition` it is being inserted · `Aborted` it was replaced meanwhile (`document_replaced`).
    pub(super) async fn put_parts(&self, tenant: &str, bank_id: &str, id: &str, parts: Vec<(usize, ContentPart)>) -> Result<()> {
        let field = |index: usize| format!("content_parts[{index}]");
        let _held = self.0.locks.document(&key(tenant, bank_id), id).await;
        let there = self.there(tenant, bank_id, id).await?;
        let KeptDocument { mut document, revision, .. } = there.ok_or_else(|| no_such_document(id))?;
        if document.status() != DocumentStatus::Completed {
            let first = parts.first().map_or(0, |(index, _)| *index);
            return Err(Error::failed_precondition("the document is not inserted yet, or was not").with_field(field(first)));
        }
        let before = document.content.take();
        let mut content = before.clone();
        for (index, part) in parts {
            let given = part.part.ok_or_else(|| Error::invalid(field(index), "the part is empty: give text or data"))?;
            let whole = joined(content, part.offset, given).ok_or_else(|| {
                Error::invalid(field(index), "the part does not fit: the content ends before it, is of another kind, or is a file's")
            })?;
            let size = bytes_of(&whole).len() as u64;
            if size > document.bytes {
                let message = format!("with this part the content has {size} bytes, and the document was said to have {}", document.bytes);
                return Err(Error::invalid(field(index), message));
            }
            content = Some(whole);
        }
        if content == before {
            return Ok(());
        }
        drop(before);
        let Some(content) = content else { return Ok(()) };
        let is_complete = bytes_of(&content).len() as u64 == document.bytes;
        let hash = move |content: &Content| if is_complete { hex::encode(Sha256::digest(bytes_of(content))) } else { String::new() };
        let hashed = tokio::task::spawn_blocking(move || (hash(&content), content));
        let (sha256, content) = hashed.await.map_err(broke_off)?;
        (document.sha256, document.content) = (sha256, Some(content));
        if self.store.put_document_content(tenant, bank_id, InsertedDocument { document, revision }).await? {
            Ok(())
        } else {
            Err(replaced())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_joined_are_the_whole_and_no_letter_is_cut() {
        let text: String = "aé€😀".repeat(50);
        let data = text.as_bytes().to_vec();
        for whole in [Content::Text(text.clone()), Content::Data(data)] {
            for bytes in [1, 2, 3, 7, 499, 500, 501] {
                let (mut again, mut offset) = (None, 0);
                while offset < text.len() as u64 {
                    let piece = match part(whole.clone(), offset, bytes).unwrap() {
                        Content::Text(text) => Part::Text(text),
                        Content::Data(data) => Part::Data(data),
                        Content::FileId(_) => unreachable!("it is no file"),
                    };
                    let length = match &piece {
                        Part::Text(text) => text.len(),
                        Part::Data(data) => data.len(),
                    };
                    assert!(length > 0 && length as u64 <= bytes + 3);
                    again = joined(again, offset, piece.clone());
                    // The same again changes nothing.
                    again = joined(again, offset, piece);
                    offset += length as u64;
                }
                assert_eq!(again.as_ref(), Some(&whole));
            }
        }
        assert_eq!(part(Content::Text("é".into()), 1, 0).unwrap_err().field(), Some("content_offset"));
        assert_eq!(part(Content::Data(vec![1]), 2, 0).unwrap_err().field(), Some("content_offset"));
        assert_eq!(joined(Some(Content::Text("é".into())), 1, Part::Text("x".into())), None);
        assert_eq!(joined(Some(Content::Text("one".into())), 3, Part::Data(vec![1])), None);
        assert_eq!(joined(None, 1, Part::Data(vec![1])), None);
        assert_eq!(joined(Some(Content::FileId("file".into())), 0, Part::Data(vec![1])), None);
    }
}
