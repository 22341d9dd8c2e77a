//! Mutations by chance, the same for the same seed.

use rand::{Rng, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Of an input; longer ones are cut.
const LONGEST: usize = 64 << 10;

/// What parsers are known to stumble over.
const WORDS: [&[u8]; 24] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xed\xa0\x80",
    "\u{FEFF}".as_bytes(),
    "\u{202E}".as_bytes(),
    "e\u{301}🦀".as_bytes(),
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"\r\n",
    b"\n\n",
    b"1e309",
    b"-1",
    b"99999999999999999999999",
    b"null",
    b"NaN",
];

/// Makes inputs out of seeds.
pub struct Mutator {
    chance: StdRng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// Of at least one seed.
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty(), "there is nothing to mutate");
        Self { chance: StdRng::seed_from_u64(seed), seeds }
    }

    /// The next input: a seed after one to eight changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seeds.choose(&mut self.chance).cloned().unwrap_or_default();
        for _ in 0..self.chance.random_range(1..=8) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.chance.random_range(0..=input.len());
        let end = self.chance.random_range(at..=input.len().min(at + 64));
        match self.chance.random_range(0..10) {
            0 if at < input.len() => input[at] ^= 1 << self.chance.random_range(0..8),
            1 if at < input.len() => input[at] = self.chance.random(),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at..end].to_vec();
                let times = *[1, 2, 100, 1_000].choose(&mut self.chance).unwrap_or(&1);
                insert(input, at, &piece.repeat(times.min(LONGEST / (piece.len() + 1))));
            }
            5 => {
                let other = self.seeds.choose(&mut self.chance).cloned().unwrap_or_default();
                let from = self.chance.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 => {
                let word = WORDS.choose(&mut self.chance).copied().unwrap_or_default();
                let times = *[1, 1, 1, 500].choose(&mut self.chance).unwrap_or(&1);
                insert(input, at, &word.repeat(times));
            }
            7 => {
                let word = WORDS.choose(&mut self.chance).copied().unwrap_or_default();
                input.splice(at..end, word.iter().copied());
            }
            8 => {
                let piece = input[at..end].to_vec();
                let to = self.chance.random_range(0..=input.len());
                insert(input, to, &piece);
            }
            _ => insert(input, at, &[self.chance.random()]),
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if input.len() + bytes.len() <= LONGEST {
        input.splice(at..at, bytes.iter().copied());
    }
}
