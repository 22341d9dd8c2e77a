//! Many words and phrases at once, in any case and spacing.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::normalise::{JOINED, Reading, Traced, folded};

/// Phrases of fewer letters are not looked for without their spaces: they would be found inside other words.
const COMPACT: usize = 8;

pub(super) struct Keywords {
    spaced: AhoCorasick,
    /// For texts whose spaces were lost with those between the letters.
    compact: AhoCorasick,
}

impl Keywords {
    /// # Errors
    /// The place of a keyword that is empty, and what is wrong.
    pub(super) fn new(keywords: &[String]) -> Result<Self, (usize, String)> {
        let mut spaced = Vec::with_capacity(keywords.len());
        for (index, keyword) in keywords.iter().enumerate() {
            let plain = form(&folded(keyword));
            let plain = plain.text().trim();
            if plain.is_empty() {
                return Err((index, "this keyword is empty".to_owned()));
            }
            spaced.push(plain.to_owned());
        }
        let long =
            |plain: &String| Some(compact(&Traced::of(plain)).text().to_owned()).filter(|letters| letters.chars().count() >= COMPACT);
        let build = |words: Vec<String>| {
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(words);
            built.map_err(|error| (0, format!("these keywords are too many or too long: {error}")))
        };
        Ok(Self { compact: build(spaced.iter().filter_map(long).collect())?, spaced: build(spaced)? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spaced.patterns_len() == 0
    }

    /// Where they are, as bytes of the text that the reading is of.
    pub(super) fn find(&self, reading: &Reading) -> Vec<Range<usize>> {
        if self.is_empty() {
            return Vec::new();
        }
        let plain = form(&reading.text);
        let whole_word = |range: &Range<usize>| {
            let text = plain.text();
            let (inside, before, behind) =
                (&text[range.clone()], text[..range.start].chars().next_back(), text[range.end..].chars().next());
            let goes_on = |edge: Option<char>, next: Option<char>| edge.is_some_and(spelled) && next.is_some_and(spelled);
            !goes_on(inside.chars().next(), before) && !goes_on(inside.chars().next_back(), behind)
        };
        let mut found: Vec<Range<usize>> =
            self.spaced.find_iter(plain.text()).map(|hit| hit.range()).filter(whole_word).map(|range| plain.source(range)).collect();
        if reading.how == JOINED {
            let compact = compact(&plain);
            found.extend(self.compact.find_iter(compact.text()).map(|hit| compact.source(hit.range())));
        }
        found
    }
}

/// Letters of writings that set words apart; in others a phrase may stand anywhere.
fn spelled(c: char) -> bool {
    use unicode_script::{Script, UnicodeScript};
    let run_on = matches!(
        c.script(),
        Script::Han | Script::Hiragana | Script::Katakana | Script::Thai | Script::Lao | Script::Khmer | Script::Myanmar
    );
    (c.is_alphanumeric() || c == '_') && !run_on
}

/// Lower case, and one space for any white space and for the quotes that differ from hand to hand.
fn form(text: &Traced) -> Traced {
    let mut plain = Traced::with_capacity(text.text().len());
    for (_, c, source) in text.chars() {
        match c {
            '’' | '‘' | '`' => plain.push('\'', source),
            c if c.is_whitespace() => {
                if !plain.text().ends_with(' ') {
                    plain.push(' ', source);
                }
            }
            c => c.to_lowercase().for_each(|lower| plain.push(lower, source.clone())),
        }
    }
    plain
}

fn compact(text: &Traced) -> Traced {
    let mut compact = Traced::with_capacity(text.text().len());
    text.chars().filter(|(_, c, _)| c.is_alphanumeric()).for_each(|(_, c, source)| compact.push(c, source));
    compact
}
