//! Attention of a text over itself: a few queries at a time, whose scores never leave the processor's nearest cache.
//!
//! As matrix products and passes between them, the scores of all heads are written, read and allocated several times; here they
//! are a few rows that are used again. The products go through one tile, small enough for the registers, in plain loops that
//! the compiler makes vectors of.

use rayon::prelude::*;

use crate::kernels;

/// A tile: so many rows of one side,
const QUERIES: usize = 4;
/// by so many columns of the other: eight vector registers in all.
const COLUMNS: usize = 16;
/// Queries that are worth handing to another thread.
const GRAIN: usize = 32;

/// How the heads lie in a row of queries, of keys or of values: side by side.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) size: usize,
}

/// Keys and values of one head, as tiles want them: keys by values by texts, values by texts by values, both padded.
struct Packed {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Heads {
    pub(crate) fn width(self) -> usize {
        self.count * self.size
    }

    /// What the heads read in one text, side by side, for as many of its first tokens as there is place. Queries are scaled
    /// already. A text sees its own tokens and no padding, since there is none.
    pub(crate) fn attend(self, [queries, keys, values]: [&[f32]; 3], place: &mut [f32]) {
        let packed: Vec<Packed> = (0..self.count).map(|head| self.pack(keys, values, head)).collect();
        let rows = GRAIN * self.width();
        place.par_chunks_mut(rows).zip(queries.par_chunks(rows)).for_each(|(place, queries)| {
            packed.iter().enumerate().for_each(|(head, packed)| self.one(queries, head, packed, place));
        });
    }

    fn pack(self, keys: &[f32], values: &[f32], head: usize) -> Packed {
        let (width, size) = (self.width(), self.size);
        let length = keys.len() / width;
        let (padded, wide) = (length.next_multiple_of(COLUMNS), size.next_multiple_of(COLUMNS));
        let mut packed = Packed { keys: vec![0.0; size * padded], values: vec![0.0; length * wide] };
        let part = head * size..(head + 1) * size;
        for (at, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            packed.keys.chunks_exact_mut(padded).zip(&key[part.clone()]).for_each(|(to, value)| to[at] = *value);
            packed.values[at * wide..][..size].copy_from_slice(&value[part.clone()]);
        }
        packed
    }

    /// One head, for the tokens of `place`.
    fn one(self, queries: &[f32], head: usize, packed: &Packed, place: &mut [f32]) {
        let (width, size) = (self.width(), self.size);
        let (padded, wide) = (packed.keys.len() / size, size.next_multiple_of(COLUMNS));
        let length = packed.values.len() / wide;
        let mut scores = vec![0.0; QUERIES * padded];
        for (group, place) in place.chunks_mut(QUERIES * width).enumerate() {
            let count = place.len() / width;
            // Where there are fewer, the last is computed again.
            let query = |n: usize| &queries[(group * QUERIES + n.min(count - 1)) * width + head * size..][..size];
            let queries: [&[f32]; QUERIES] = std::array::from_fn(query);
            for column in (0..padded).step_by(COLUMNS) {
                let tile = tile(queries, &packed.keys[column..], padded);
                for (scores, tile) in scores.chunks_exact_mut(padded).zip(tile) {
                    scores[column..][..COLUMNS].copy_from_slice(&tile);
                }
            }
            scores.chunks_exact_mut(padded).take(count).for_each(|scores| kernels::softmax(&mut scores[..length]));
            let shares: [&[f32]; QUERIES] = std::array::from_fn(|n| &scores[n.min(count - 1) * padded..][..length]);
            for column in (0..size).step_by(COLUMNS) {
                let tile = tile(shares, &packed.values[column..], wide);
                let some = COLUMNS.min(size - column);
                for (place, tile) in place.chunks_exact_mut(width).zip(tile) {
                    place[head * size + column..][..some].copy_from_slice(&tile[..some]);
                }
            }
        }
    }
}

/// Rows times columns: `columns` has them in rows of `stride` values, of which the first are taken.
#[inline(always)]
fn tile(rows: [&[f32]; QUERIES], columns: &[f32], stride: usize) -> [[f32; COLUMNS]; QUERIES] {
    let mut sums = [[0.0_f32; COLUMNS]; QUERIES];
    let [a, b, c, d] = rows;
    for ((((a, b), c), d), columns) in a.iter().zip(b).zip(c).zip(d).zip(columns.chunks(stride)) {
        let Some(columns) = columns.first_chunk::<COLUMNS>() else { break };
        for (sums, value) in sums.iter_mut().zip([a, b, c, d]) {
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = value.mul_add(*column, *sum);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the formula has it, one number after the other.
    fn plain(heads: Heads, rows: [&[f32]; 3], queries: usize) -> Vec<f32> {
        let (width, size) = (heads.width(), heads.size);
        let length = rows[0].len() / width;
        let mut made = vec![0.0; queries * width];
        for query in 0..queries {
            for head in 0..heads.count {
                let part = |row: usize, which: usize| &rows[which][row * width + head * size..][..size];
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let scores: Vec<f64> = (0..length).map(|key| dot(part(query, 0), part(key, 1)).exp()).collect();
                let all: f64 = scores.iter().sum();
                for at in 0..size {
                    let sum: f64 = (0..length).map(|key| scores[key] / all * f64::from(part(key, 2)[at])).sum();
                    made[query * width + head * size + at] = sum as f32;
                }
            }
        }
        made
    }

    #[test]
    fn texts_and_heads_of_any_size_are_read_as_the_formula_has_it() {
        for (count, size) in [(1, 1), (2, 8), (3, 16), (2, 24), (12, 32), (1, 64)] {
            for length in [1, 3, 4, 15, 16, 17, 33, 70] {
                let heads = Heads { count, size };
                let drawn =
                    |by: usize| (0..length * heads.width()).map(|n| ((n * by + n / 7) % 23) as f32 / 16.0 - 0.7).collect::<Vec<f32>>();
                let rows = [drawn(31), drawn(17), drawn(5)];
                let rows = [0, 1, 2].map(|which| rows[which].as_slice());
                for queries in [1, length] {
                    let mut made = vec![0.0; queries * heads.width()];
                    heads.attend(rows, &mut made);
                    for (made, wanted) in made.iter().zip(plain(heads, rows, queries)) {
                        assert!((made - wanted).abs() < 1e-5, "{count} heads of {size}, {length} tokens: {made} {wanted}");
                    }
                }
            }
        }
    }
}
