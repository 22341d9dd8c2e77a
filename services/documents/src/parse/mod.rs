//! Readers, one for each kind of file. They run where a limit on memory and time holds: see [`crate::Workers`].

mod code;
mod docx;
mod format;
mod html;
mod json;
mod markdown;
mod pdf;
mod sheet;
mod text;
mod written;

use llama_stack_core::Result;

use crate::{Parsed, failure};
pub(crate) use format::Format;
use written::Written;

/// Reads a file whole. Titles that a file does not have are left empty.
///
/// # Errors
/// As [`crate::Parse::parse`]; `text` is the most bytes of text that a file may have.
pub fn parse(filename: &str, media_type: &str, data: &[u8], text: usize) -> Result<Parsed> {
    if data.iter().all(u8::is_ascii_whitespace) {
        return Err(failure::empty());
    }
    let format = Format::of(filename, media_type, data)?;
    let mut written = Written::new(text);
    match format {
        Format::Text => text::read(&text::decode(data, media_type), &mut written)?,
        Format::Code(_) => code::read(&text::decode(data, media_type), &mut written)?,
        Format::Markdown => markdown::read(&text::decode(data, media_type), true, &mut written)?,
        Format::Html => html::read(&text::decode_page(data, media_type), text, &mut written)?,
        Format::Json => json::read(&text::decode(data, media_type), &mut written)?,
        Format::JsonLines => json::read_lines(&text::decode(data, media_type), &mut written)?,
        Format::Csv => sheet::read_csv(&text::decode(data, media_type), &mut written)?,
        Format::Sheet => sheet::read(data, &mut written)?,
        Format::Pdf => pdf::read(data, &mut written)?,
        Format::Docx => docx::read(data, &mut written)?,
    }
    let (title, blocks) = written.finish();
    if blocks.is_empty() {
        return Err(failure::malformed(format.name(), "there is no text in it"));
    }
    Ok(Parsed { title, media_type: format.media_type().into(), blocks })
}
