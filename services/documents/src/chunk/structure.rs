//! Cut where the document itself is divided: at headings, between functions, between rows, between sentences.

use std::ops::Range;

use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use super::{
    CountTokens,
    pack::{Budget, pack},
    whole::Whole,
};
use crate::{Kind, Parsed};

struct Sizer<'a>(&'a dyn CountTokens);

impl ChunkSizer for Sizer<'_> {
    fn size(&self, chunk: &str) -> usize {
        self.0.count(chunk)
    }
}

/// Ranges of at most `most` tokens. Markdown by its headings, then its blocks; code and tables by their functions and
/// rows, then their lines; all else by paragraphs, sentences and words.
pub(super) fn ranges(parsed: &Parsed, whole: &Whole<'_>, most: usize, overlap: usize, tokens: &dyn CountTokens) -> Vec<Range<usize>> {
    let lines = parsed.blocks.iter().filter(|block| matches!(block.kind, Kind::Code | Kind::Table)).count();
    if lines * 2 > parsed.blocks.len() {
        return by_lines(whole, Budget::new(&whole.text, most, overlap, tokens), most);
    }
    let config = ChunkConfig::new(most).with_sizer(Sizer(tokens));
    // Half at most, as `validate` has seen.
    let Ok(config) = config.with_overlap(overlap) else { return Vec::new() };
    let range = |(start, text): (usize, &str)| start..start + text.len();
    if parsed.blocks.iter().any(|block| block.kind == Kind::Heading) {
        MarkdownSplitter::new(config).chunk_indices(&whole.text).map(range).collect()
    } else {
        TextSplitter::new(config).chunk_indices(&whole.text).map(range).collect()
    }
}

fn by_lines(whole: &Whole<'_>, mut budget: Budget<'_>, most: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for block in whole.blocks() {
        if budget.count(block.clone()) <= most {
            pieces.push(block);
            continue;
        }
        let mut at = block.start;
        for line in whole.text[block].split_inclusive('\n') {
            let range = at..at + line.len();
            at = range.end;
            if budget.count(range.clone()) > most { pieces.extend(whole.words(range)) } else { pieces.push(range) }
        }
    }
    pack(pieces, budget)
}
