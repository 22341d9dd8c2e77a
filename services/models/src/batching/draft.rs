//! Guesses at what an answer says next, at no cost: the text that followed the same words before.
//!
//! "Prompt lookup decoding" (Saxena, 2023): tool arguments and quotations repeat the prompt. A guess is computed together
//! with the token before it and counts only where the chooser chooses the same, so the answer is what it would have been.

use std::collections::HashMap;

/// Tokens that must be the same for a guess.
const KEY: usize = 3;
const LONGEST: usize = 8;
const SHORTEST: usize = 2;
/// Steps without a guess after one that was wrong from its first token; doubled each time.
const FIRST_PAUSE: u32 = 2;
const LONGEST_PAUSE: u32 = 64;

/// Follows one sequence.
#[derive(Debug)]
pub(super) struct Drafter {
    /// Where the tokens after a key stand, the newest place.
    places: HashMap<[u32; KEY], usize>,
    indexed: usize,
    length: usize,
    pause: u32,
    skip: u32,
}

impl Drafter {
    pub(super) fn new() -> Self {
        Self { places: HashMap::new(), indexed: 0, length: SHORTEST, pause: FIRST_PAUSE, skip: 0 }
    }

    /// What may follow `tokens`; nothing where the last words are new or guessing has not paid of late.
    pub(super) fn draft(&mut self, tokens: &[u32]) -> Vec<u32> {
        // The last key is looked up before it is stored: it would find itself.
        while self.indexed + KEY < tokens.len() {
            let key = [tokens[self.indexed], tokens[self.indexed + 1], tokens[self.indexed + 2]];
            self.places.insert(key, self.indexed + KEY);
            self.indexed += 1;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Vec::new();
        }
        let Some([.., a, b, c]) = tokens.get(..) else { return Vec::new() };
        let Some(place) = self.places.get(&[*a, *b, *c]) else { return Vec::new() };
        tokens[*place..].iter().copied().take(self.length).collect()
    }

    /// Of a guess, the first `right` tokens were.
    pub(super) fn judged(&mut self, guessed: usize, right: usize) {
        if right == guessed {
            self.length = (self.length * 2).min(LONGEST);
            self.pause = FIRST_PAUSE;
        } else {
            self.length = right.max(SHORTEST);
            if right == 0 {
                self.skip = self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_same_words_is_guessed() {
        let mut drafter = Drafter::new();
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 5, 1, 2, 3]), [4, 5]);
        drafter.judged(2, 2);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1]), [2, 3, 4, 5]);
        assert!(Drafter::new().draft(&[1, 2, 3, 4, 5, 6]).is_empty());
        assert!(Drafter::new().draft(&[1, 2]).is_empty());
        assert!(Drafter::new().draft(&[1, 2, 3]).is_empty());
    }

    #[test]
    fn guesses_that_do_not_pay_are_left_out_for_a_while() {
        let tokens = [1, 2, 3, 4, 1, 2, 3];
        let mut drafter = Drafter::new();
        let mut made = 0;
        for _ in 0..200 {
            let guess = drafter.draft(&tokens);
            if !guess.is_empty() {
                made += 1;
                drafter.judged(guess.len(), 0);
            }
        }
        assert!((3..12).contains(&made), "{made}");
    }
}
