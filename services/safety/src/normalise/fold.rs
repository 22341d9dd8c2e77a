//! Folding: one letter for each of its disguises, and nothing that cannot be seen.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};
use unicode_script::{Script, UnicodeScript};

use super::traced::Traced;

/// Without invisible characters; compatibility forms (full-width, circled, mathematical letters) as the letters that they
/// are; look-alikes of other scripts as Latin letters, in words that mix scripts and in a text that is Latin otherwise;
/// stacked marks gone.
pub(super) fn fold(text: &Traced) -> Traced {
    if text.text().bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        return text.clone();
    }
    let visible = compose(text);
    let latin_text = mostly_latin(visible.text());
    let mut folded = Traced::with_capacity(visible.text().len());
    for word in words(visible.text()) {
        let range = word.start..word.end;
        if word.is_word && disguised(&visible.text()[range.clone()], latin_text) {
            for (_, c, source) in visible.chars_in(range) {
                match look_alike(c) {
                    Some(latin) => folded.push(latin, source),
                    None => folded.push(c, source),
                }
            }
        } else {
            folded.push_from(&visible, range);
        }
    }
    unmark(&folded)
}

/// Characters without a width or a look of their own, wherever they stand.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

/// Drops what can't be seen and writes compatibility forms out. An expansion to more than four characters is kept as it
/// is, so that the result stays in proportion to the text.
fn compose(text: &Traced) -> Traced {
    let chars: Vec<_> = text.chars().map(|(_, c, source)| (c, source)).collect();
    let mut visible = Traced::with_capacity(text.text().len());
    for (index, (c, source)) in chars.iter().enumerate() {
        let (c, source) = (*c, source.clone());
        if c.is_ascii() && !c.is_control() {
            visible.push(c, source);
        } else if is_invisible(c) {
            // Joiners are letters' neighbours in scripts that need them.
            let near = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|(c, _)| joins(*c));
            let key = matches!(chars.get(index + 1), Some(('\u{20e3}', _)));
            if matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}') && (key || near(index.checked_sub(1))) {
                visible.push(c, source);
            }
        } else if c.is_whitespace() && !matches!(c, '\t' | '\n' | '\r') {
            visible.push(' ', source);
        } else if !has_forms(c) {
            visible.push(c, source);
        } else {
            let expanded: Vec<char> = std::iter::once(c).nfkc().take(5).collect();
            if expanded.len() > 4 {
                visible.push(c, source);
            } else {
                for part in expanded {
                    visible.push(part, source.clone());
                }
            }
        }
    }
    visible
}

/// Whether people read a character as its compatibility form: letters and digits in another dress. Not signs and
/// superscripts, which mean something, nor letters whose look counts, nor scripts in which the form is another spelling.
fn has_forms(c: char) -> bool {
    let meant = matches!(c, '\u{a8}'..='\u{be}' | '\u{2070}'..='\u{209f}' | '\u{2150}'..='\u{215f}' | '\u{2189}' | '\u{3200}'..='\u{33ff}');
    let dressed = c.is_alphanumeric() || matches!(c, '\u{ff01}'..='\u{ff5e}' | '\u{249c}'..='\u{24e9}' | '\u{1f110}'..='\u{1f189}');
    let own = matches!(c.script(), Script::Hangul | Script::Thai | Script::Lao | Script::Greek | Script::Cyrillic | Script::Armenian);
    dressed && !meant && !own && !is_combining_mark(c)
}

/// Whether a joiner or a selector after this character belongs to the writing: emoji, and scripts that join.
pub(crate) fn joins(c: char) -> bool {
    use unicode_properties::UnicodeEmoji;
    if c.is_ascii() {
        return false;
    }
    if c.is_emoji_char() || matches!(c, '\u{1f3fb}'..='\u{1f3ff}' | '\u{fe0f}' | '\u{20e3}') {
        return true;
    }
    matches!(
        c.script(),
        Script::Arabic
            | Script::Syriac
            | Script::Mongolian
            | Script::Nko
            | Script::Devanagari
            | Script::Bengali
            | Script::Gurmukhi
            | Script::Gujarati
            | Script::Oriya
            | Script::Tamil
            | Script::Telugu
            | Script::Kannada
            | Script::Malayalam
            | Script::Sinhala
            | Script::Khmer
            | Script::Myanmar
            | Script::Tibetan
            | Script::Han
            | Script::Phags_Pa
            | Script::Manichaean
    )
}

/// The Latin letter or ASCII sign that a character of another script looks like.
pub(crate) fn look_alike(c: char) -> Option<char> {
    if c.is_ascii() {
        return None;
    }
    if let Ok(found) = LOOK_ALIKES.binary_search_by_key(&c, |(other, _)| *other) {
        return Some(LOOK_ALIKES[found].1);
    }
    let mut buffer = [0; 4];
    let mut skeleton = unicode_security::confusable_detection::skeleton(c.encode_utf8(&mut buffer));
    match (skeleton.next(), skeleton.next()) {
        // The table of Unicode has one look for I, l and 1: the case of the letter tells which.
        (Some('l'), None) if c.is_uppercase() => Some('I'),
        (Some(latin), None) if latin.is_ascii_alphanumeric() => Some(latin),
        _ => None,
    }
}

/// Before Unicode's table: letters that it gives no single Latin look, or another one than writers of disguises mean.
#[rustfmt::skip]
const LOOK_ALIKES: [(char, char); 91] = [
    ('ø', 'o'), ('ı', 'i'), ('ł', 'l'), ('ſ', 's'), ('Ɩ', 'l'), ('ǀ', 'l'), ('ɑ', 'a'), ('ɓ', 'b'), ('ɖ', 'd'), ('ɗ', 'd'), ('ə', 'e'), ('ɛ', 'e'),
    ('ɡ', 'g'), ('ɢ', 'g'), ('ɣ', 'y'), ('ɦ', 'h'), ('ɨ', 'i'), ('ɩ', 'i'), ('ɪ', 'i'), ('ɫ', 'l'), ('ɬ', 'l'), ('ɯ', 'w'), ('ɱ', 'm'), ('ɲ', 'n'),
    ('ɳ', 'n'), ('ɴ', 'n'), ('ɵ', 'o'), ('ɼ', 'r'), ('ɽ', 'r'), ('ʀ', 'r'), ('ʂ', 's'), ('ʈ', 't'), ('ʏ', 'y'), ('ʙ', 'b'), ('ʜ', 'h'), ('ʟ', 'l'),
    ('α', 'a'), ('β', 'b'), ('γ', 'y'), ('ε', 'e'), ('η', 'n'), ('ι', 'i'), ('κ', 'k'), ('μ', 'u'), ('ν', 'v'), ('ρ', 'p'), ('τ', 't'), ('υ', 'u'),
    ('χ', 'x'), ('ω', 'w'), ('Ѕ', 'S'), ('І', 'I'), ('В', 'B'), ('К', 'K'), ('М', 'M'), ('Н', 'H'), ('Т', 'T'), ('в', 'b'), ('к', 'k'), ('м', 'm'),
    ('н', 'h'), ('п', 'n'), ('т', 't'), ('у', 'y'), ('ѵ', 'v'), ('ҥ', 'h'), ('ԍ', 'g'), ('ԛ', 'q'), ('ԝ', 'w'), ('գ', 'q'), ('զ', 'q'), ('հ', 'h'),
    ('ո', 'n'), ('ս', 'u'), ('ց', 'g'), ('ᴀ', 'a'), ('ᴄ', 'c'), ('ᴅ', 'd'), ('ᴇ', 'e'), ('ᴊ', 'j'), ('ᴋ', 'k'), ('ᴍ', 'm'), ('ᴏ', 'o'), ('ᴘ', 'p'),
    ('ᴛ', 't'), ('ᴜ', 'u'), ('ᴠ', 'v'), ('ᴡ', 'w'), ('ᴢ', 'z'), ('ꜰ', 'f'), ('ꜱ', 's'),
];

struct Word {
    start: usize,
    end: usize,
    is_word: bool,
}

/// The text as words and what is between them, in order and complete.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for (at, c) in text.char_indices() {
        let is_word = c.is_alphanumeric() || is_combining_mark(c);
        let end = at + c.len_utf8();
        match words.last_mut() {
            Some(last) if last.is_word == is_word => last.end = end,
            _ => words.push(Word { start: at, end, is_word }),
        }
    }
    words
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && c.is_alphabetic() && c.script() == Script::Latin)
}

fn mostly_latin(text: &str) -> bool {
    let (latin, letters) = text
        .chars()
        .filter(|c| c.is_alphabetic())
        .fold((0_usize, 0_usize), |(latin, letters), c| (latin + usize::from(is_latin(c)), letters + 1));
    latin * 5 >= letters * 2 && latin > 0
}

/// Whether a word's foreign letters stand for Latin ones: they are among Latin letters, or the text is Latin and every
/// letter of the word has a Latin look.
fn disguised(word: &str, latin_text: bool) -> bool {
    if word.is_ascii() {
        return false;
    }
    let (mut latin, mut foreign, mut alike) = (0, 0, 0);
    for c in word.chars().filter(|c| c.is_alphabetic()) {
        if c.is_ascii() {
            latin += 1;
        } else if is_latin(c) {
            // Letters with marks are what they are; phonetic signs and small capitals are not.
            match look_alike(c) {
                Some(_) if !is_written(c) => alike += 1,
                _ => latin += 1,
            }
        } else {
            foreign += 1;
            alike += usize::from(look_alike(c).is_some());
        }
    }
    if latin > 0 || foreign == 0 { alike > 0 && alike >= foreign } else { latin_text && alike > 1 && alike >= foreign }
}

/// Latin letters of living alphabets, which look like others and are not disguises of them.
fn is_written(c: char) -> bool {
    matches!(c, 'ø' | 'Ø' | 'ı' | 'ł' | 'Ł' | 'đ' | 'Đ' | 'ħ' | 'Ħ' | 'ß' | 'ə' | 'Ə' | 'ɛ' | 'ŋ' | 'æ' | 'œ' | 'ð' | 'þ')
        || std::iter::once(c).nfd().count() > 1
}

/// Takes the marks from words in which most letters carry one, and from letters that carry more than one.
fn unmark(text: &Traced) -> Traced {
    if text.text().is_ascii() {
        return text.clone();
    }
    let mut plain = Traced::with_capacity(text.text().len());
    for word in words(text.text()) {
        let range = word.start..word.end;
        let content = &text.text()[range.clone()];
        if !word.is_word || content.is_ascii() || !overmarked(content) {
            plain.push_from(text, range);
            continue;
        }
        for (_, c, source) in text.chars_in(range) {
            if !is_combining_mark(c) {
                let base = std::iter::once(c).nfd().next().unwrap_or(c);
                plain.push(base, source);
            }
        }
    }
    plain
}

fn overmarked(word: &str) -> bool {
    let (mut letters, mut marked, mut marks, mut run) = (0_usize, 0_usize, 0_usize, 0_usize);
    let mut most = 0;
    for c in word.nfd() {
        if is_combining_mark(c) {
            if run == 0 {
                marked += 1;
            }
            run += 1;
            marks += usize::from(matches!(c, '\u{334}'..='\u{338}' | '\u{20d2}' | '\u{20d3}' | '\u{20e5}'..='\u{20eb}'));
            most = most.max(run);
        } else {
            run = 0;
            if !is_latin(c) && c.is_alphabetic() {
                return false; // Vowel signs of other scripts are letters.
            }
            letters += 1;
        }
    }
    marks > 0 || most > 2 || (letters >= 4 && marked * 10 > letters * 6)
}

impl Traced {
    /// The characters of a range.
    pub(super) fn chars_in(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (usize, char, std::ops::Range<usize>)> + '_ {
        self.text()[range.clone()].char_indices().map(move |(at, c)| {
            let at = range.start + at;
            (at, c, self.source(at..at + c.len_utf8()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        fold(&Traced::of(text)).text().to_owned()
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(
            LOOK_ALIKES.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{:?}",
            LOOK_ALIKES.windows(2).find(|pair| pair[0].0 >= pair[1].0)
        );
    }

    #[test]
    fn disguises_are_one_letter() {
        for disguise in ["іgnоrе", "ig\u{200b}no\u{2060}re", "ｉｇｎｏｒｅ", "𝐢𝐠𝐧𝐨𝐫𝐞", "ⓘⓖⓝⓞⓡⓔ", "ïgńörë", "i̵g̵n̵o̵r̵e̵", "ɪɢɴᴏʀᴇ"]
        {
            assert_eq!(folded(disguise), "ignore", "{disguise}");
        }
    }

    #[test]
    fn languages_are_left_as_they_are() {
        for text in [
            "naïve façade Größe",
            "Привет, как дела?",
            "Đặt vé máy bay đi Hà Nội",
            "नमस्ते क्\u{200d}ष",
            "می\u{200c}خواهم",
            "👩\u{200d}💻 ❤\u{fe0f}",
            "한국어 텍스트",
            "α und β",
            "½ …",
        ] {
            assert_eq!(folded(text), text);
        }
    }
}
