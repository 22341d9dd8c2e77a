//! Markdown: its blocks as they are written, under their headings.

use llama_stack_core::Result;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::written::{At, Written};
use crate::Kind;

/// With `lines`, blocks say on which lines of the text they stand.
pub(super) fn read(text: &str, lines: bool, written: &mut Written) -> Result<()> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let (mut depth, mut name) = (0_usize, String::new());
    let (mut seen, mut number) = (0, 1_u32);
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                depth += 1;
                if matches!(tag, Tag::Heading { .. }) {
                    name.clear();
                }
            }
            Event::End(tag) => {
                depth = depth.saturating_sub(1);
                if depth > 0 {
                    continue;
                }
                // An indented block begins with its indentation.
                let start = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
                let start = if text[start..range.start].trim().is_empty() { start } else { range.start };
                let block = text[start..range.end].trim_end();
                number = number.saturating_add(newlines(&text[seen.min(start)..start]));
                seen = start;
                let lines = if lines { (number, number.saturating_add(newlines(block))) } else { (0, 0) };
                let at = At { page: 0, lines };
                match tag {
                    TagEnd::Heading(level) => written.heading(level_of(level), block, &name, at)?,
                    TagEnd::CodeBlock => written.push(Kind::Code, block, at)?,
                    TagEnd::Table => written.push(Kind::Table, block, at)?,
                    TagEnd::MetadataBlock(_) => front_matter(block, written),
                    _ => written.push(Kind::Text, block, at)?,
                }
            }
            Event::Text(part) | Event::Code(part) => name.push_str(&part),
            Event::SoftBreak | Event::HardBreak => name.push(' '),
            _ => {}
        }
    }
    Ok(())
}

fn newlines(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

fn level_of(level: HeadingLevel) -> u8 {
    level as u8
}

/// Of what stands before the text, the title is the document's.
fn front_matter(block: &str, written: &mut Written) {
    let title = block.lines().find_map(|line| line.strip_prefix("title:"));
    if let Some(title) = title {
        written.title(title.trim().trim_matches(['"', '\'']));
    }
}
