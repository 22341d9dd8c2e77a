//! The document's XML, read as it streams by: nothing of it is nested in memory.

use std::collections::HashMap;

use llama_stack_core::Result;
use quick_xml::{
    Reader,
    events::{BytesRef, BytesStart, Event},
};

use super::super::written::{At, Written};
use crate::{Kind, failure};

/// A cell's text in its row.
const CELL: &str = " | ";

#[derive(Default)]
struct State {
    text: String,
    /// Of the paragraph: a heading of this level.
    level: Option<u8>,
    /// Tables around this place.
    tables: usize,
    cells: Vec<String>,
    cell: String,
    /// Within what is shown.
    shown: bool,
}

pub(super) fn read(document: &[u8], levels: &HashMap<Vec<u8>, u8>, written: &mut Written) -> Result<()> {
    let (mut reader, mut state) = (Reader::from_reader(document), State::default());
    loop {
        let event = reader.read_event().map_err(|error| failure::malformed("DOCX", error))?;
        match event {
            Event::Start(tag) => state.open(&tag, levels),
            Event::Empty(tag) => {
                state.open(&tag, levels);
                state.close(tag.name().as_ref(), written)?;
            }
            Event::End(tag) => state.close(tag.name().as_ref(), written)?,
            Event::Text(text) if state.shown => {
                let text = text.decode().map_err(|error| failure::malformed("DOCX", error))?;
                state.text.push_str(&text);
            }
            Event::GeneralRef(reference) if state.shown => state.text.push_str(&resolve(&reference)?),
            // A document of this kind has none; one that brings its own entities means harm.
            Event::DocType(_) => return Err(failure::malformed("DOCX", "it defines entities")),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

impl State {
    fn open(&mut self, tag: &BytesStart<'_>, levels: &HashMap<Vec<u8>, u8>) {
        match tag.name().as_ref() {
            b"w:p" if self.tables == 0 => {
                self.text.clear();
                self.level = None;
            }
            b"w:pStyle" => {
                let style = value(tag, b"w:val");
                self.level = style.and_then(|style| levels.get(&style).copied().or_else(|| level(&style)));
            }
            b"w:outlineLvl" => {
                let number = value(tag, b"w:val").and_then(|value| String::from_utf8(value).ok()?.parse::<u8>().ok());
                self.level = number.filter(|number| *number < 9).map(|number| number + 1).or(self.level);
            }
            b"w:t" => self.shown = true,
            b"w:tab" if !self.text.is_empty() => self.text.push('\t'),
            b"w:br" | b"w:cr" => self.text.push('\n'),
            b"w:noBreakHyphen" => self.text.push('-'),
            b"w:tbl" => self.tables += 1,
            _ => {}
        }
    }

    fn close(&mut self, name: &[u8], written: &mut Written) -> Result<()> {
        let at = At::default();
        match name {
            b"w:t" => self.shown = false,
            b"w:p" if self.tables > 0 => {
                if !self.cell.is_empty() && !self.text.trim().is_empty() {
                    self.cell.push(' ');
                }
                self.cell.push_str(self.text.trim());
                self.text.clear();
            }
            b"w:p" => {
                let text = std::mem::take(&mut self.text);
                match self.level.take() {
                    Some(level) if !text.trim().is_empty() => {
                        let marks = "#".repeat(usize::from(level.min(6)));
                        written.heading(level, &format!("{marks} {}", text.trim()), &text, at)?;
                    }
                    _ => written.push(Kind::Text, text.trim(), at)?,
                }
            }
            // A table in a cell is part of its text.
            b"w:tc" if self.tables == 1 => self.cells.push(std::mem::take(&mut self.cell)),
            b"w:tr" if self.tables == 1 => {
                let row = std::mem::take(&mut self.cells);
                if row.iter().any(|cell| !cell.is_empty()) {
                    written.push(Kind::Table, &row.join(CELL), at)?;
                }
            }
            b"w:tbl" => self.tables = self.tables.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }
}

/// `&lt;`, `&#65;`.
fn resolve(reference: &BytesRef<'_>) -> Result<String> {
    let damaged = |why: String| failure::malformed("DOCX", why);
    if let Some(c) = reference.resolve_char_ref().map_err(|error| damaged(error.to_string()))? {
        return Ok(c.to_string());
    }
    let name = reference.decode().map_err(|error| damaged(error.to_string()))?;
    let known = quick_xml::escape::resolve_predefined_entity(&name);
    known.map(str::to_owned).ok_or_else(|| damaged(format!("it names an entity {name:?} that there is not")))
}

pub(super) fn value(tag: &BytesStart<'_>, name: &[u8]) -> Option<Vec<u8>> {
    tag.try_get_attribute(name).ok().flatten().map(|attribute| attribute.value.into_owned())
}

/// `Title`, `heading 2`, `Heading2`.
pub(super) fn level(style: &[u8]) -> Option<u8> {
    let style = String::from_utf8_lossy(style).to_ascii_lowercase();
    if style == "title" {
        return Some(1);
    }
    let level: u8 = style.strip_prefix("heading")?.trim().parse().ok()?;
    (1..=9).contains(&level).then_some(level)
}
