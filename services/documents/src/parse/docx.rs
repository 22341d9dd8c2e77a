//! DOCX: paragraphs, headings and tables of the document's own part of the archive.
//!
//! Source: ECMA-376 part 1, 17.3 (paragraphs), 17.4 (tables), 17.7 (styles).

mod paragraphs;

use std::{
    collections::HashMap,
    io::{Cursor, Read as _},
};

use llama_stack_core::Result;
use quick_xml::{Reader, events::Event};
use zip::{ZipArchive, result::ZipError};

use super::written::Written;
use crate::failure;

/// What a part of the archive may unpack to.
const MAX_PART: u64 = 128 << 20;

pub(super) fn read(data: &[u8], written: &mut Written) -> Result<()> {
    let mut archive = ZipArchive::new(Cursor::new(data)).map_err(damaged)?;
    let main = archive.file_names().find(|name| name.starts_with("word/document") && name.ends_with(".xml")).map(str::to_owned);
    let main = main.ok_or_else(|| failure::malformed("DOCX", "it has no document"))?;
    let levels = match part(&mut archive, "word/styles.xml")? {
        Some(styles) => levels(&styles),
        None => HashMap::new(),
    };
    if let Some(properties) = part(&mut archive, "docProps/core.xml")?
        && let Some(title) = title(&properties)
    {
        written.title(&title);
    }
    let Some(document) = part(&mut archive, &main)? else { return Ok(()) };
    paragraphs::read(&document, &levels, written)
}

/// A part of the archive, unpacked; none where there is no such part.
fn part(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<Option<Vec<u8>>> {
    let file = match archive.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(damaged(error)),
    };
    let mut unpacked = Vec::new();
    file.take(MAX_PART + 1).read_to_end(&mut unpacked).map_err(|error| failure::malformed("DOCX", error))?;
    if unpacked.len() as u64 > MAX_PART {
        return Err(failure::limits(format!("a part of it unpacks to more than {MAX_PART} bytes")));
    }
    Ok(Some(unpacked))
}

fn damaged(error: ZipError) -> llama_stack_core::Error {
    match error {
        ZipError::UnsupportedArchive(why) if why.contains("Password") => failure::encrypted(),
        other => failure::malformed("DOCX", other),
    }
}

/// Styles whose names say that they are headings, in whatever language their ids are.
fn levels(styles: &[u8]) -> HashMap<Vec<u8>, u8> {
    let (mut reader, mut levels, mut style) = (Reader::from_reader(styles), HashMap::new(), None);
    // A damaged list of styles costs headings alone.
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Eof => break,
            Event::Start(tag) if tag.name().as_ref() == b"w:style" => style = paragraphs::value(&tag, b"w:styleId"),
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == b"w:name" => {
                let level = paragraphs::value(&tag, b"w:val").and_then(|name| paragraphs::level(&name));
                if let (Some(style), Some(level)) = (&style, level) {
                    levels.insert(style.clone(), level);
                }
            }
            _ => {}
        }
    }
    levels
}

fn title(properties: &[u8]) -> Option<String> {
    let mut reader = Reader::from_reader(properties);
    let mut inside = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => inside = tag.name().as_ref() == b"dc:title",
            Event::Text(text) if inside => return text.decode().ok().map(|text| text.into_owned()),
            Event::End(_) => inside = false,
            Event::Eof => return None,
            _ => {}
        }
    }
}
