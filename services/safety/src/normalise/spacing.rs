//! Letters that were set apart: by spaces, dots, dashes, line breaks or markup.

use std::{collections::BTreeSet, ops::Range, sync::LazyLock};

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
        let Some(run) = run_of_letters(&chars, at).filter(|run| is_spelled(text, run)) else {
            at += 1;
            continue;
        };
        let start = chars[at].0;
        joined.push_from(text, done..start);
        write_words(text, &run, &mut joined);
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

/// The letters of a word of a run. Those that stood alone were no words by which a disguise is told; here they are, if the
/// run has Latin ones.
fn letters(text: &Traced, run: &Run, word: &[Range<usize>]) -> Vec<char> {
    let letter = |place: &Range<usize>| text.text()[place.clone()].chars().next();
    let latin = run.words.iter().flatten().filter_map(letter).any(|c| c.is_ascii_alphabetic());
    word.iter().filter_map(letter).map(|c| if latin { super::look_alike(c).unwrap_or(c) } else { c }).collect()
}

/// Where known words end in letters that may be leetspeak.
fn segment(letters: &[char]) -> Option<Vec<usize>> {
    let read: Vec<char> = letters.iter().map(|c| super::leet::letter(*c).unwrap_or(*c)).collect();
    vocabulary::segment(&read)
}

/// Whether a run spells words: known ones, or so many letters that nobody lists them.
fn is_spelled(text: &Traced, run: &Run) -> bool {
    let letters: Vec<char> = run.words.iter().flat_map(|word| letters(text, run, word)).collect();
    (letters.len() > LEAST && letters.iter().all(|c| c.is_alphabetic())) || segment(&letters).is_some()
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

fn write_words(text: &Traced, run: &Run, joined: &mut Traced) {
    for (index, word) in run.words.iter().enumerate() {
        if let (true, Some(first)) = (index > 0, word.first()) {
            joined.push(' ', text.source(first.clone()));
        }
        let letters = letters(text, run, word);
        let ends: BTreeSet<usize> = segment(&letters).unwrap_or_default().into_iter().collect();
        for (index, (place, c)) in word.iter().zip(letters).enumerate() {
            if ends.contains(&index) {
                joined.push(' ', text.source(place.clone()));
            }
            joined.push(c, text.source(place.clone()));
        }
    }
}

/// Markup and joints that can stand inside a word: `ig**no**re`, `ig<b>no</b>re`, `[ig](x)nore`, `"ig" + "nore"`, `ig-⏎nore`.
static INSIDE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?P<joint>["'`”’]\s*(?:\+|\.|&|\|\|)\s*["'`“‘])"#,
        r"|\[(?P<link>[^\[\]\n]{1,80})\]\([^()\s]{0,200}\)",
        r"|(?P<hyphen>[-\u{2010}\\][ \t]*\r?\n[ \t>#*]*)",
        r"|(?P<sign>(?:\*{1,3}|`{1,3}|~~|<!--[^>]{0,200}-->|/\*[^*]{0,200}\*/",
        r"|</?(?:b|i|u|s|em|strong|span|font|mark|sub|sup|small|code|wbr|ins|del|a)\b[^<>]{0,100}>)+)",
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
        let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
        let (before, behind) = (letter(whole[..place.start()].chars().next_back()), letter(whole[place.end()..].chars().next()));
        let sign = hit.name("sign").and_then(|sign| sign.as_str().chars().next());
        let closes = open.is_some() && open == sign && before;
        let inside = match hit.name("link") {
            Some(_) => before || behind,
            None => hit.name("joint").is_some() || (before && behind),
        };
        open = sign.filter(|_| inside && !closes);
        if inside || closes {
            plain.push_from(text, done..place.start());
            if let Some(label) = hit.name("link") {
                plain.push_from(text, label.range());
            }
            done = place.end();
            found |= inside;
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
