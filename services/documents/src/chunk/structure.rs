//! Where a text may be cut: the parts of a document that are to stay whole, as far as a passage holds them.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    pack::{Budget, Piece},
    whole::Whole,
};
use crate::{Kind, Parsed};

/// Blocks: headings, paragraphs, functions, rows. One that is too long: its sentences, or of code and tables its lines.
pub(super) fn blocks(parsed: &Parsed, whole: &Whole<'_>, budget: &mut Budget<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (block, range) in parsed.blocks.iter().zip(whole.blocks()) {
        if budget.holds(range.clone()) {
            pieces.push(Piece { range, opens: block.kind == Kind::Heading });
        } else if matches!(block.kind, Kind::Code | Kind::Table) {
            push_parts(whole, budget, range.start, whole.text[range.clone()].split_inclusive('\n'), &mut pieces);
        } else {
            push_parts(whole, budget, range.start, whole.text[range.clone()].split_sentence_bounds(), &mut pieces);
        }
    }
    pieces
}

/// Sentences, none of which spans two blocks.
pub(super) fn sentences(whole: &Whole<'_>, budget: &mut Budget<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for range in whole.blocks() {
        push_parts(whole, budget, range.start, whole.text[range.clone()].split_sentence_bounds(), &mut pieces);
    }
    pieces
}

pub(super) fn words(whole: &Whole<'_>, range: Range<usize>) -> Vec<Piece> {
    whole.words(range).into_iter().map(Piece::from).collect()
}

/// Adjoining parts of a text that begins at `start`; one that no passage holds is cut between words.
fn push_parts<'t>(whole: &Whole<'_>, budget: &mut Budget<'_>, start: usize, parts: impl Iterator<Item = &'t str>, pieces: &mut Vec<Piece>) {
    let mut at = start;
    for part in parts {
        let range = at..at + part.len();
        at = range.end;
        if budget.holds(range.clone()) { pieces.push(range.into()) } else { pieces.extend(words(whole, range)) }
    }
}
