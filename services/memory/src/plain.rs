//! Plain text and Markdown, read in this process, where a stack has no parsers.

use bytes::Bytes;
use llama_stack_core::{Error, Result};
use llama_stack_documents::{Block, Kind, Parse, Parsed};

pub(crate) struct PlainText;

#[async_trait::async_trait]
impl Parse for PlainText {
    async fn parse(&self, filename: &str, media_type: &str, data: Bytes) -> Result<Parsed> {
        let Ok(text) = std::str::from_utf8(&data).map(|text| text.trim_start_matches('\u{feff}')) else {
            let message = "this stack reads plain text in UTF-8 only, and this is something else";
            return Err(Error::invalid("content", message).with_reason("unsupported_media_type"));
        };
        if text.contains('\0') {
            let message = "this stack reads plain text only, and this is something else";
            return Err(Error::invalid("content", message).with_reason("unsupported_media_type"));
        }
        if text.trim().is_empty() {
            return Err(Error::invalid("content", "the document has no text").with_reason("empty_file"));
        }
        let markdown = media_type.starts_with("text/markdown") || filename.ends_with(".md");
        let media_type = if markdown { "text/markdown" } else { "text/plain" };
        Ok(Parsed { media_type: media_type.into(), blocks: blocks(text, markdown), ..Parsed::default() })
    }
}

/// Paragraphs, and in Markdown the headings over them.
fn blocks(text: &str, markdown: bool) -> Vec<Block> {
    let (mut blocks, mut headings) = (Vec::new(), Vec::<(usize, String)>::new());
    let mut open: Option<Block> = None;
    for (line, number) in text.lines().zip(1..) {
        let heading = Some(line).filter(|_| markdown).and_then(heading);
        if line.trim().is_empty() || heading.is_some() {
            blocks.extend(open.take());
        }
        let above = || headings.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" > ");
        if let Some((level, text)) = heading {
            headings.retain(|(there, _)| *there < level);
            let heading = headings.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" > ");
            blocks.push(Block { text: line.into(), line_start: number, line_end: number, heading, kind: Kind::Heading, page: 0 });
            headings.push((level, text.to_owned()));
        } else if !line.trim().is_empty() {
            let block = open.get_or_insert_with(|| Block { line_start: number, heading: above(), ..Block::default() });
            if !block.text.is_empty() {
                block.text.push('\n');
            }
            block.text.push_str(line);
            block.line_end = number;
        }
    }
    blocks.extend(open);
    blocks
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let text = line.get(level..)?.strip_prefix(' ')?.trim();
    ((1..=6).contains(&level) && !text.is_empty()).then_some((level, text))
}
