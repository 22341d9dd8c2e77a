//! PDF: page by page, what is written on it.

mod page;

use llama_stack_core::{Error, Result};
use lopdf::{DecompressError, Document, LoadOptions, Object};

use super::written::{At, Written};
use crate::{Kind, failure};

/// What one stream of the file may unpack to.
const MAX_STREAM: usize = 128 << 20;
/// Pages that are read. A tree of pages may lead in circles.
const MAX_PAGES: usize = 20_000;

pub(super) fn read(data: &[u8], written: &mut Written) -> Result<()> {
    let options = LoadOptions { max_decompressed_size: Some(MAX_STREAM), ..LoadOptions::default() };
    let document = Document::load_mem_with_options(data, options).map_err(unreadable)?;
    if document.is_encrypted() {
        return Err(failure::encrypted());
    }
    if let Some(title) = title(&document) {
        written.title(&title);
    }
    let (mut pages, mut unread) = (0, None);
    for (number, id) in (1_u32..).zip(document.page_iter().take(MAX_PAGES)) {
        pages += 1;
        match page::text(&document, id, MAX_STREAM) {
            Ok(text) => {
                for (_, paragraph) in super::text::parts(&text, |_, _| true) {
                    written.push(Kind::Text, paragraph, At { page: number, lines: (0, 0) })?;
                }
            }
            Err(error @ lopdf::Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => return Err(unreadable(error)),
            Err(error) => unread = Some(error),
        }
    }
    match unread {
        // Of a document that can be read in part, that part is better than nothing.
        Some(error) if written.is_empty() => Err(unreadable(error)),
        _ if pages == 0 => Err(failure::malformed("PDF", "it has no pages")),
        _ if written.is_empty() => Err(failure::malformed("PDF", "no page has text: it may hold scanned images, which are not read")),
        _ => Ok(()),
    }
}

fn unreadable(error: lopdf::Error) -> Error {
    match error {
        lopdf::Error::InvalidPassword | lopdf::Error::Decryption(_) => failure::encrypted(),
        lopdf::Error::Decompress(DecompressError::MemoryLimitExceeded { .. }) => {
            failure::limits(format!("a part of it unpacks to more than {MAX_STREAM} bytes"))
        }
        other => failure::malformed("PDF", other),
    }
}

fn title(document: &Document) -> Option<String> {
    let info = document.trailer.get(b"Info").ok()?;
    let (_, info) = document.dereference(info).ok()?;
    let title: &Object = info.as_dict().ok()?.get(b"Title").ok()?;
    lopdf::decode_text_string(title).ok()
}
