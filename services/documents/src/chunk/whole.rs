//! A document as one text, and the place of every part of it.

use std::ops::Range;

use llama_stack_proto::v1::Position;

use crate::{Kind, Parsed, Passage};

/// A word longer than this can be cut: it is no word.
const WORD: usize = 64;

pub(super) struct Whole<'a> {
    pub(super) text: String,
    parsed: &'a Parsed,
    /// Where each block stands in `text`. What lies between two belongs to the one before.
    spans: Vec<Range<usize>>,
}

impl<'a> Whole<'a> {
    pub(super) fn new(parsed: &'a Parsed) -> Self {
        let mut text = String::with_capacity(parsed.blocks.iter().map(|block| block.text.len() + 2).sum());
        let mut spans = Vec::with_capacity(parsed.blocks.len());
        let mut before = None;
        for block in &parsed.blocks {
            if let Some(before) = before {
                // Rows of a table, and what follows line by line in the file, are kept together.
                let rows = before == (Kind::Table, block.page) && block.kind == Kind::Table;
                text.push_str(if rows { "\n" } else { "\n\n" });
            }
            before = Some((block.kind, block.page));
            let start = text.len();
            text.push_str(&block.text);
            spans.push(start..text.len());
        }
        Self { text, parsed, spans }
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.spans.iter().skip(1).map(|next| next.start).chain([self.text.len()]);
        self.spans.iter().map(|span| span.start).zip(ends).map(|(start, end)| start..end)
    }

    /// Words, each with the white space after it, cut where one is endless.
    pub(super) fn words(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        let mut rest = range.start;
        for word in self.text[range].split_inclusive(char::is_whitespace) {
            let end = rest + word.len();
            while end - rest > WORD {
                let cut = self.text.ceil_char_boundary(rest + WORD).min(end);
                words.push(rest..cut);
                rest = cut;
            }
            if rest < end {
                words.push(rest..end);
            }
            rest = end;
        }
        words
    }

    /// The text of a range, without white space around it. None where nothing is left.
    pub(super) fn passage(&self, range: Range<usize>) -> Option<Passage> {
        let text = &self.text[range.clone()];
        let start = range.start + (text.len() - text.trim_start().len());
        // Of code, the white space of the first line says how deep it stands.
        let from = self.text[range.start..start].rfind('\n').map_or(range.start, |at| range.start + at + 1);
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return None;
        }
        let end = start + trimmed.len();
        let first = self.block_at(start)?;
        let code = self.parsed.blocks[first].kind == Kind::Code;
        let text = self.text[if code { from } else { start }..end].to_owned();
        Some(Passage { text, position: self.position(start..end, first) })
    }

    fn position(&self, range: Range<usize>, first: usize) -> Position {
        let last = self.block_at(range.end.saturating_sub(1)).unwrap_or(first);
        let block = &self.parsed.blocks[first];
        // A heading stands under itself for whoever cites it.
        let heading = if block.kind == Kind::Heading {
            self.parsed.blocks.get(first + 1).map_or(&block.heading, |next| &next.heading)
        } else {
            &block.heading
        };
        Position {
            page: block.page,
            line_start: self.line(first, range.start),
            line_end: self.line(last, range.end),
            heading: heading.clone(),
        }
    }

    fn block_at(&self, offset: usize) -> Option<usize> {
        self.spans.partition_point(|span| span.start <= offset).checked_sub(1)
    }

    /// The line of the file that an offset in a block stands on.
    fn line(&self, block: usize, offset: usize) -> u32 {
        let (span, block) = (&self.spans[block], &self.parsed.blocks[block]);
        if block.line_start == 0 {
            return 0;
        }
        let before = &self.text[span.start..offset.clamp(span.start, span.end)];
        let line = block.line_start + u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX - block.line_start);
        line.min(block.line_end.max(block.line_start))
    }
}
