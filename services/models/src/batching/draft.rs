//! Guesses at what an answer says next.
//!
//! The text that followed the same words before costs nothing: "prompt lookup decoding" (Saxena, 2023), since tool arguments
//! and quotations repeat the prompt. Where that knows nothing, a second, small model may be asked. A guess is computed together
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
    lookup: Option<Lookup>,
    /// In a second model.
    model: Option<Trust>,
    /// The guess that is to be judged next is the second model's.
    asked: bool,
}

/// Where text stands that came before.
#[derive(Debug)]
struct Lookup {
    /// Where the tokens after a key stand, the newest place.
    places: HashMap<[u32; KEY], usize>,
    indexed: usize,
    trust: Trust,
}

/// How much to guess: less, or nothing for a while, where guesses were wrong.
#[derive(Debug)]
struct Trust {
    longest: usize,
    length: usize,
    pause: u32,
    skip: u32,
}

impl Drafter {
    /// `lookup`: by the text before. `guesses`: the most tokens that a second model is asked for; 0 where there is none.
    pub(super) fn new(lookup: bool, guesses: usize) -> Self {
        let lookup = lookup.then(|| Lookup { places: HashMap::new(), indexed: 0, trust: Trust::new(SHORTEST, LONGEST) });
        let model = (guesses > 0).then(|| Trust::new(guesses, guesses));
        Self { lookup, model, asked: false }
    }

    /// What may follow `tokens`; nothing where the last words are new and the second model knows nothing, or where guessing
    /// has not paid of late. `ask` asks that model for so many tokens: none where it cannot say yet, and nothing where it
    /// doubts.
    pub(super) fn draft(&mut self, tokens: &[u32], ask: impl FnOnce(usize) -> Option<Vec<u32>>) -> Vec<u32> {
        self.asked = false;
        let found = self.lookup.as_mut().map(|lookup| lookup.draft(tokens)).unwrap_or_default();
        if !found.is_empty() {
            return found;
        }
        let Some(trust) = &mut self.model else { return found };
        let Some(guess) = trust.next().and_then(ask) else { return found };
        if guess.is_empty() {
            // It took its time, for nothing.
            trust.judged(1, 0);
        }
        self.asked = true;
        guess
    }

    /// Of a guess, the first `right` tokens were.
    pub(super) fn judged(&mut self, guessed: usize, right: usize) {
        let trust = if self.asked { self.model.as_mut() } else { self.lookup.as_mut().map(|lookup| &mut lookup.trust) };
        if let Some(trust) = trust {
            trust.judged(guessed, right);
        }
    }
}

impl Lookup {
    fn draft(&mut self, tokens: &[u32]) -> Vec<u32> {
        // The last key is looked up before it is stored: it would find itself.
        while self.indexed + KEY < tokens.len() {
            let key = [tokens[self.indexed], tokens[self.indexed + 1], tokens[self.indexed + 2]];
            self.places.insert(key, self.indexed + KEY);
            self.indexed += 1;
        }
        let Some(length) = self.trust.next() else { return Vec::new() };
        let Some([.., a, b, c]) = tokens.get(..) else { return Vec::new() };
        let Some(place) = self.places.get(&[*a, *b, *c]) else { return Vec::new() };
        tokens[*place..].iter().copied().take(length).collect()
    }
}

impl Trust {
    fn new(length: usize, longest: usize) -> Self {
        Self { longest, length, pause: FIRST_PAUSE, skip: 0 }
    }

    /// How many tokens to guess now; none in a pause.
    fn next(&mut self) -> Option<usize> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.length)
    }

    fn judged(&mut self, guessed: usize, right: usize) {
        if right == guessed {
            self.length = (self.length * 2).min(self.longest);
            self.pause = FIRST_PAUSE;
        } else {
            self.length = right.max(SHORTEST).min(self.longest);
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

    fn lookup() -> Drafter {
        Drafter::new(true, 0)
    }

    fn nobody(_: usize) -> Option<Vec<u32>> {
        panic!("there is no second model")
    }

    #[test]
    fn what_followed_the_same_words_is_guessed() {
        let mut drafter = lookup();
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 5, 1, 2, 3], nobody), [4, 5]);
        drafter.judged(2, 2);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1], nobody), [2, 3, 4, 5]);
        assert!(lookup().draft(&[1, 2, 3, 4, 5, 6], nobody).is_empty());
        assert!(lookup().draft(&[1, 2], nobody).is_empty());
        assert!(lookup().draft(&[1, 2, 3], nobody).is_empty());
    }

    #[test]
    fn guesses_that_do_not_pay_are_left_out_for_a_while() {
        let tokens = [1, 2, 3, 4, 1, 2, 3];
        let mut drafter = lookup();
        let mut made = 0;
        for _ in 0..200 {
            let guess = drafter.draft(&tokens, nobody);
            if !guess.is_empty() {
                made += 1;
                drafter.judged(guess.len(), 0);
            }
        }
        assert!((3..12).contains(&made), "{made}");
    }

    #[test]
    fn a_second_model_is_asked_where_the_text_is_new_and_for_as_long_as_it_pays() {
        let mut drafter = Drafter::new(true, 4);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 1, 2, 3], nobody), [4, 1]);
        drafter.judged(2, 0);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 1, 2, 3, 9], |most| Some(vec![7; most])), [7; 4]);
        drafter.judged(4, 2);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 1, 2, 3, 9, 7, 7, 8], |most| Some(vec![7; most])), [7; 2], "half of it was wrong");
        drafter.judged(2, 2);
        // It has read too little yet: no fault of it.
        assert!(drafter.draft(&[1], |_| None).is_empty());
        let (mut asked, mut doubting) = (0, Drafter::new(false, 4));
        for _ in 0..200 {
            doubting.draft(&[1, 2, 3], |_| {
                asked += 1;
                Some(Vec::new())
            });
        }
        assert!((3..12).contains(&asked), "{asked}");
    }
}
