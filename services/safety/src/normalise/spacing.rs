//! Letters that were set apart: by spaces, dots, dashes, line breaks or markup.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

use super::{traced::Traced, vocabulary};

/// Fewer letters in a row are initials, lists or formulas.
const LEAST: usize = 5;

/// `i g n o r e` and `i-g-n-o-r-e` as words. `None`: no run of letters is set apart.
pub(super) fn join_letters(text: &Traced) -> Option<Traced> {
    let chars: Vec<(usize, char)> = text.text().char_indices().collect();
    let mut joined = Traced::with_capacity(text.text().len());
    let (mut at, mut done, mut found) = (0, 0, false);
    while at < chars.len() {
        let Some(run) = run_of_letters(&chars, at) else {
            at += 1;
            continue;
        };
        let start = chars[at].0;
        joined.push_from(text, done..start);
        write_words(text, &run.words, &mut joined);
        (done, at, found) = (run.end, run.next, true);
    }
    joined.push_from(text, done..text.text().len());
    found.then_some(joined)
}

struct Run {
    /// The places of the letters, by word as wider gaps tell them.
    words: Vec<Vec<Range<usize>>>,
    /// Bytes.
    end: usize,
    /// Characters.
    next: usize,
}

/// Single letters from `first` on with one and the same sign between them.
fn run_of_letters(chars: &[(usize, char)], first: usize) -> Option<Run> {
    let letter = |at: usize| chars.get(at).is_some_and(|(_, c)| c.is_alphanumeric() || matches!(c, '@' | '$' | '!'));
    let starts = letter(first) && (first == 0 || !chars[first - 1].1.is_alphanumeric());
    let separator = chars.get(first + 1)?.1;
    if !starts || !is_separator(separator) {
        return None;
    }
    let place = |at: usize| chars[at].0..chars[at].0 + chars[at].1.len_utf8();
    let mut words = vec![vec![place(first)]];
    let (mut count, mut letters, mut at) = (1, usize::from(chars[first].1.is_alphabetic()), first + 1);
    loop {
        let gap = chars[at.min(chars.len())..].iter().take(4).take_while(|(_, c)| is_separator(*c)).count();
        let next = at + gap;
        // A letter that stands alone: what follows it is no letter.
        if gap == 0
            || gap > 3
            || !letter(next)
            || letter(next + 1)
            || (gap == 1 && chars[at].1 != separator && !chars[at].1.is_whitespace())
        {
            break;
        }
        let wider = gap > 1 || chars[at].1 != separator;
        if wider {
            words.push(Vec::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(place(next));
        }
        count += 1;
        letters += usize::from(chars[next].1.is_alphabetic());
        at = next + 1;
    }
    let end = chars.get(at).map_or_else(|| chars.last().map_or(0, |(at, c)| at + c.len_utf8()), |(at, _)| *at);
    (count >= LEAST && letters * 4 >= count * 3).then_some(Run { words, end, next: at })
}

fn is_separator(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t'
            | '\n'
            | '\r'
            | '.'
            | '-'
            | '_'
            | '*'
            | '/'
            | '|'
            | ','
            | '·'
            | '•'
            | '~'
            | '+'
            | '\\'
            | '‧'
            | '∙'
            | '—'
            | '–'
            | '='
            | '^'
            | ':'
    )
}

fn write_words(text: &Traced, words: &[Vec<Range<usize>>], joined: &mut Traced) {
    let letter = |place: &Range<usize>| text.text()[place.clone()].chars().next();
    let latin = words.iter().flatten().filter_map(letter).any(|c| c.is_ascii_alphabetic());
    // Letters that stand alone were no words by which a disguise is told; here they are.
    let plain = |c: char| if latin { super::look_alike(c).unwrap_or(c) } else { c };
    for (index, word) in words.iter().enumerate() {
        if let (true, Some(first)) = (index > 0, word.first()) {
            joined.push(' ', text.source(first.clone()));
        }
        let letters: Vec<char> = word.iter().filter_map(letter).map(plain).collect();
        let read: Vec<char> = letters.iter().map(|c| super::leet::letter(*c).unwrap_or(*c)).collect();
        let ends = vocabulary::segment(&read).unwrap_or_default();
        for (index, (place, c)) in word.iter().zip(letters).enumerate() {
            if ends.contains(&index) {
                joined.push(' ', text.source(place.clone()));
            }
            joined.push(c, text.source(place.clone()));
        }
    }
}

/// Markup and joints inside a word: `ig**no**re`, `ig<b>no</b>re`, `[ig](x)nore`, `"ig" + "nore"`, `ig-⏎nore`.
static INSIDE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?P<joint>["'`”’]\s*(?:\+|\.|&|\|\||,)\s*["'`“‘])"#,
        r"|(?P<comment><!--[^>]{0,200}-->|/\*[^*]{0,200}\*/)",
        r"|(?P<tag></?(?:b|i|u|s|em|strong|span|font|mark|sub|sup|small|code|wbr|ins|del|a)\b[^<>]{0,100}>)",
        r"|(?P<link>\]\([^()\s]{0,200}\))",
        r"|(?P<hyphen>[-\u{2010}\u{ad}\\][ \t]*\r?\n[ \t>#*]*)",
        r"|(?P<sign>\*{1,3}|_{1,3}|`{1,3}|~~|\[|\{|\}|\])",
    ))
    .ok()
});

/// Words without the markup inside them. `None`: there was none.
pub(super) fn unmark(text: &Traced) -> Option<Traced> {
    let whole = text.text();
    let mut plain = Traced::with_capacity(whole.len());
    // The sign that was taken out of a word last: what closes it goes with it.
    let (mut done, mut found, mut open) = (0, false, None);
    for hit in INSIDE.as_ref()?.captures_iter(whole) {
        let Some(place) = hit.get(0) else { continue };
        let before = whole[..place.start()].chars().next_back();
        let after = whole[place.end()..].chars().next();
        let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
        let sign = |c: Option<char>| c.is_some_and(|c| c.is_alphabetic() || matches!(c, '*' | '_' | '`' | '~' | '[' | ']' | '<'));
        let inside = if hit.name("joint").is_some() {
            true
        } else if hit.name("sign").is_some_and(|sign| sign.as_str().starts_with('_')) {
            false // Names of programs: snake_case.
        } else {
            (letter(before) && sign(after)) || (sign(before) && letter(after))
        };
        let first = place.as_str().chars().next();
        let closes = open.is_some() && open == first && letter(before);
        open = if inside && !closes { first.filter(|_| hit.name("joint").is_none() && hit.name("hyphen").is_none()) } else { None };
        if inside || closes {
            plain.push_from(text, done..place.start());
            done = place.end();
            found |= hit.name("joint").is_some() || (letter(before) && letter(after));
        }
    }
    plain.push_from(text, done..whole.len());
    found.then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Option<String> {
        join_letters(&Traced::of(text)).map(|joined| joined.text().to_owned())
    }

    fn unmarked(text: &str) -> Option<String> {
        unmark(&Traced::of(text)).map(|plain| plain.text().to_owned())
    }

    #[test]
    fn letters_set_apart_are_words_again() {
        assert_eq!(joined("please i g n o r e   a l l now").as_deref(), Some("please ignore all now"));
        assert_eq!(joined("i.g.n.o.r.e a.l.l").as_deref(), Some("ignore all"));
        assert_eq!(joined("i g n o r e a l l p r e v i o u s").as_deref(), Some("ignore all previous"));
        assert_eq!(joined("i\ng\nn\no\nr\ne").as_deref(), Some("ignore"));
    }

    #[test]
    fn initials_numbers_and_lists_stay() {
        for text in ["J. R. R. Tolkien", "1 2 3 4 5 6 7", "a, b and c", "e.g. this", "x + y = z", "A/B test"] {
            assert_eq!(joined(text), None, "{text}");
        }
    }

    #[test]
    fn markup_inside_words_goes() {
        assert_eq!(unmarked("ig**no**re it").as_deref(), Some("ignore it"));
        assert_eq!(unmarked("ig<b>no</b>re").as_deref(), Some("ignore"));
        assert_eq!(unmarked("\"ign\" + \"ore all\"").as_deref(), Some("\"ignore all\""));
        assert_eq!(unmarked("instruc-\ntions").as_deref(), Some("instructions"));
        for text in ["**bold** text", "snake_case_name", "a[0] = b", "`code` here", "- item\n- other", "see [here](x) now"] {
            assert_eq!(unmarked(text), None, "{text}");
        }
    }
}
