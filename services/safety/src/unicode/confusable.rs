//! Letters that are not what they look like. The looks are Unicode's (UTS #39), with [`normalise::look_alike`]'s additions.

use unicode_normalization::UnicodeNormalization;
use unicode_script::{Script, UnicodeScript};

use super::{Found, Kind};
use crate::normalise;

pub(super) fn find(text: &str) -> Vec<Found> {
    let east_asian = text.chars().any(|c| matches!(c.script(), Script::Han | Script::Hiragana | Script::Katakana | Script::Hangul));
    words(text)
        .filter_map(|(start, word)| {
            let range = start..start + word.len();
            if mixed(word) {
                let instead = word.chars().map(|c| normalise::look_alike(c).unwrap_or(c)).collect();
                return Some(Found { kind: Kind::MixedScript, range, spells: None, instead });
            }
            if styled(word, east_asian) {
                return Some(Found { kind: Kind::Styled, range, spells: None, instead: word.nfkc().collect() });
            }
            None
        })
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| !is_part(c)).filter_map(move |word| {
        let start = at;
        at = start + word.len();
        // Past the character that ended the word.
        at += text[at..].chars().next().map_or(0, char::len_utf8);
        (!word.is_empty() && !word.is_ascii()).then_some((start, word))
    })
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c) || is_styled(c)
}

/// Latin letters, and among them Cyrillic, Greek, Armenian, Cherokee or Coptic ones that all look Latin. A single Greek
/// letter at an edge is a sign of a formula (`σmax`), unless it is the omicron.
fn mixed(word: &str) -> bool {
    let letters: Vec<char> = word.chars().filter(|c| c.is_alphabetic()).collect();
    let latin = letters.iter().filter(|c| c.script() == Script::Latin && !is_styled(**c)).count();
    let foreign: Vec<char> = letters
        .iter()
        .copied()
        .filter(|c| {
            matches!(c.script(), Script::Cyrillic | Script::Greek | Script::Armenian | Script::Cherokee | Script::Coptic | Script::Lisu)
        })
        .collect();
    if latin == 0 || foreign.is_empty() || !foreign.iter().all(|c| normalise::look_alike(*c).is_some()) {
        return false;
    }
    let edge = [letters.first(), letters.last()].iter().any(|c| c.is_some_and(|c| c.script() == Script::Greek && *c != 'ο'));
    letters.len() >= 3 && !(foreign.len() == 1 && edge)
}

/// At least three letters of a look that fonts give and writing does not. Wide letters are everyday in East Asian texts.
fn styled(word: &str, east_asian: bool) -> bool {
    let count =
        word.chars().filter(|c| is_styled(*c) && !(east_asian && matches!(c, '\u{ff21}'..='\u{ff5a}' | '\u{2460}'..='\u{24ff}'))).count();
    count >= 3
}

fn is_styled(c: char) -> bool {
    matches!(c, '\u{1d400}'..='\u{1d7cb}' | '\u{24b6}'..='\u{24e9}' | '\u{1f130}'..='\u{1f189}' | '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}')
}
