//! Characters that nobody sees, where no writing needs them.

use unicode_script::{Script, UnicodeScript};

use super::{Found, Kind};
use crate::normalise;

/// How much of what they spell a report tells.
const TOLD: usize = 120;

pub(super) fn find(text: &str) -> Vec<Found> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let right_to_left = chars.iter().any(|(_, c)| is_right_to_left(*c));
    let (mut found, mut at): (Vec<Found>, usize) = (Vec::new(), 0);
    while at < chars.len() {
        let Some(kind) = kind(chars[at].1) else {
            at += 1;
            continue;
        };
        let run = chars[at..].iter().take_while(|(_, c)| self::kind(*c) == Some(kind)).count();
        let end = chars.get(at + run).map_or(text.len(), |(end, _)| *end);
        if !needed(kind, &chars, at, run, right_to_left) {
            let range = chars[at].0..end;
            let spells = normalise::hidden_text(&text[range.clone()], TOLD);
            found.push(Found { kind, range, spells, instead: String::new() });
        }
        at += run;
    }
    found
}

fn kind(c: char) -> Option<Kind> {
    match c {
        '\u{e0000}'..='\u{e007f}' => Some(Kind::Tags),
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180d}' | '\u{180f}' => Some(Kind::Selectors),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => Some(Kind::Bidi),
        '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}' => Some(Kind::PrivateUse),
        '\t' | '\n' | '\r' => None,
        c if c.is_control() => Some(Kind::Control),
        c if normalise::is_invisible(c) => Some(Kind::ZeroWidth),
        _ => None,
    }
}

fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

/// Whether a run belongs to the writing around it.
fn needed(kind: Kind, chars: &[(usize, char)], at: usize, run: usize, right_to_left: bool) -> bool {
    let char_at = |at: usize| chars.get(at).map(|(_, c)| *c);
    let before = at.checked_sub(1).and_then(char_at);
    let (first, behind) = (chars[at].1, char_at(at + run));
    match kind {
        Kind::Tags => before == Some('\u{1f3f4}') && is_flag(&chars[at..at + run]),
        // One selector for one sign. Letters of ASCII have no other look; digits have, as keys.
        Kind::Selectors => {
            run == 1
                && before.is_some_and(|c| match first {
                    '\u{fe0e}' | '\u{fe0f}' => {
                        normalise::joins(c) || matches!(c, '0'..='9' | '#' | '*') || (!c.is_ascii() && !c.is_alphabetic())
                    }
                    '\u{e0100}'..='\u{e01ef}' => c.script() == Script::Han,
                    _ => !c.is_ascii() && !c.is_whitespace(),
                })
        }
        // Overrides turn letters around; the others set texts of two directions side by side.
        Kind::Bidi => {
            let overrides = chars[at..at + run].iter().any(|(_, c)| matches!(c, '\u{202d}' | '\u{202e}'));
            right_to_left && !overrides && run <= 3
        }
        Kind::ZeroWidth => run <= 2 && zero_width_needed(first, before, behind, at, chars),
        _ => false,
    }
}

fn zero_width_needed(c: char, before: Option<char>, behind: Option<char>, at: usize, chars: &[(usize, char)]) -> bool {
    let joined = |c: Option<char>| c.is_some_and(|c| normalise::joins(c) || unicode_normalization::char::is_combining_mark(c));
    match c {
        // The mark of the order of bytes, where it begins a text.
        '\u{feff}' => at == 0,
        '\u{200d}' => joined(before) && (joined(behind) || behind.is_none_or(|c| !c.is_alphanumeric() || !c.is_ascii())),
        '\u{200c}' => joined(before),
        // Scripts without spaces, where a line may end.
        '\u{200b}' => [before, behind].iter().any(|c| {
            c.is_some_and(|c| {
                matches!(
                    c.script(),
                    Script::Thai
                        | Script::Lao
                        | Script::Khmer
                        | Script::Myanmar
                        | Script::Tibetan
                        | Script::Javanese
                        | Script::Han
                        | Script::Hiragana
                        | Script::Katakana
                )
            })
        }),
        // A place for a hyphen: at least two letters on both sides, as typesetters have it.
        '\u{ad}' => {
            let letters = |range: &[(usize, char)]| range.len() >= 2 && range.iter().all(|(_, c)| c.is_alphabetic());
            at >= 2 && letters(&chars[at - 2..at]) && letters(chars.get(at + 1..at + 3).unwrap_or_default())
        }
        // No break here; and the joiner of marks.
        '\u{2060}' => !before.is_some_and(char::is_alphabetic) || !behind.is_some_and(char::is_alphabetic),
        '\u{34f}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' => before.is_some_and(|c| !c.is_ascii()),
        // Fillers of syllables.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => {
            [before, behind].iter().any(|c| c.is_some_and(|c| c.script() == Script::Hangul))
        }
        _ => false,
    }
}

/// The tags of the three flags of regions that Unicode recommends: England, Scotland, Wales.
fn is_flag(tags: &[(usize, char)]) -> bool {
    let letters: String = tags.iter().filter_map(|(_, c)| char::from_u32((*c as u32).wrapping_sub(0xe0000))).collect();
    matches!(letters.as_str(), "gbeng\u{7f}" | "gbsct\u{7f}" | "gbwls\u{7f}")
}
