//! Pieces in, passages out: as many pieces as a budget of tokens holds, some of them again in the next passage.

use std::{collections::HashMap, ops::Range};

use super::CountTokens;

/// A part of the text that stays whole.
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    /// It belongs to what follows it, as a heading does.
    pub(super) opens: bool,
}

impl From<Range<usize>> for Piece {
    fn from(range: Range<usize>) -> Self {
        Self { range, opens: false }
    }
}

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
/// A text of more bytes than this for each token of the budget does not fit: no tokenizer has such tokens, and counting
/// it would take long.
const MOST_BYTES: usize = 64;

impl<'a> Budget<'a> {
    pub(super) fn new(text: &'a str, most: usize, overlap: usize, tokens: &'a dyn CountTokens) -> Self {
        Self { text, most, overlap, tokens, known: HashMap::new() }
    }

    fn count(&mut self, range: Range<usize>) -> usize {
        let piece = &self.text[range];
        if piece.len() > WORTH_KNOWING {
            return self.tokens.count(piece);
        }
        *self.known.entry(piece).or_insert_with(|| self.tokens.count(piece))
    }

    /// Whether one passage holds all of it.
    pub(super) fn holds(&mut self, range: Range<usize>) -> bool {
        range.len() <= self.most.saturating_mul(MOST_BYTES) && self.count(range) <= self.most
    }

    /// Ranges of adjoining pieces. Each but the first begins anew, or with pieces that the one before ended with.
    ///
    /// A piece that is too long for the budget stands alone: whoever makes pieces cuts them first.
    pub(super) fn pack(mut self, pieces: &[Piece]) -> Vec<Range<usize>> {
        let counts: Vec<usize> = pieces.iter().map(|piece| self.count(piece.range.clone())).collect();
        let (mut ranges, mut first) = (Vec::new(), 0);
        while first < pieces.len() {
            let end = self.end(pieces, &counts, first);
            ranges.push(pieces[first].range.start..pieces[end - 1].range.end);
            if end == pieces.len() {
                break;
            }
            first = self.again(pieces, &counts, first, end);
        }
        ranges
    }

    /// The piece before which the passage that begins with `first` ends.
    fn end(&self, pieces: &[Piece], counts: &[usize], first: usize) -> usize {
        let (mut end, mut sum) = (first, 0);
        while end < pieces.len() && (end == first || sum + counts[end] <= self.most) {
            // A section that begins past the middle begins a passage.
            if pieces[end].opens && sum > self.most / 2 {
                break;
            }
            sum += counts[end];
            end += 1;
        }
        // Together they can be more than the sum of each: the whole is what counts.
        while end > first + 1 {
            let over = self.tokens.count(&self.text[pieces[first].range.start..pieces[end - 1].range.end]).saturating_sub(self.most);
            if over == 0 {
                break;
            }
            let mut dropped = 0;
            while end > first + 1 && dropped < over {
                end -= 1;
                dropped += counts[end].max(1);
            }
        }
        let mut closed = end;
        while end < pieces.len() && closed > first && pieces[closed - 1].opens {
            closed -= 1;
        }
        if closed > first { closed } else { end }
    }

    /// The piece with which the next passage begins: the ones from there to `end` come again.
    fn again(&self, pieces: &[Piece], counts: &[usize], first: usize, end: usize) -> usize {
        let (mut sum, mut next) = (0, end);
        if pieces[end].opens {
            return end;
        }
        while next > first + 1 && sum + counts[next - 1] <= self.overlap {
            next -= 1;
            sum += counts[next];
        }
        // What is repeated must leave room for the piece that did not fit.
        while next < end && sum + counts[end] > self.most {
            sum -= counts[next];
            next += 1;
        }
        next
    }
}
