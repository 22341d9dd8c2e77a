//! Pieces in, passages out: as many pieces as a budget of tokens holds, some of them again in the next passage.

use std::{collections::HashMap, ops::Range};

use super::CountTokens;

/// What a passage may hold, and how it is counted.
pub(super) struct Budget<'a> {
    text: &'a str,
    most: usize,
    overlap: usize,
    tokens: &'a dyn CountTokens,
    /// Words come again and again, and counting one is not free.
    known: HashMap<&'a str, usize>,
}

/// A longer piece is not looked up: it will not come again.
const WORTH_KNOWING: usize = 24;

impl<'a> Budget<'a> {
    pub(super) fn new(text: &'a str, most: usize, overlap: usize, tokens: &'a dyn CountTokens) -> Self {
        Self { text, most, overlap, tokens, known: HashMap::new() }
    }

    pub(super) fn count(&mut self, range: Range<usize>) -> usize {
        let piece = &self.text[range];
        if piece.len() > WORTH_KNOWING {
            return self.tokens.count(piece);
        }
        *self.known.entry(piece).or_insert_with(|| self.tokens.count(piece))
    }
}

/// Ranges of adjoining pieces. Each but the first begins anew, or with pieces that the one before ended with.
///
/// A piece that is too long for the budget stands alone: whoever makes pieces cuts them first.
pub(super) fn pack(pieces: Vec<Range<usize>>, mut budget: Budget<'_>) -> Vec<Range<usize>> {
    let counts: Vec<usize> = pieces.iter().map(|piece| budget.count(piece.clone())).collect();
    let (mut ranges, mut first) = (Vec::new(), 0);
    while first < pieces.len() {
        let (mut end, mut sum) = (first, 0);
        while end < pieces.len() && (end == first || sum + counts[end] <= budget.most) {
            sum += counts[end];
            end += 1;
        }
        // Together they can be more than the sum of each: the whole is what counts.
        while end > first + 1 {
            let over = budget.tokens.count(&budget.text[pieces[first].start..pieces[end - 1].end]).saturating_sub(budget.most);
            if over == 0 {
                break;
            }
            let mut dropped = 0;
            while end > first + 1 && dropped < over {
                end -= 1;
                dropped += counts[end].max(1);
            }
        }
        ranges.push(pieces[first].start..pieces[end - 1].end);
        if end == pieces.len() {
            break;
        }
        let (mut again, mut next) = (0, end);
        while next > first + 1 && again + counts[next - 1] <= budget.overlap {
            next -= 1;
            again += counts[next];
        }
        // What is repeated must leave room for the piece that did not fit.
        while next < end && again + counts[end] > budget.most {
            again -= counts[next];
            next += 1;
        }
        first = next;
    }
    ranges
}
