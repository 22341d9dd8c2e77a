//! Runs that are text in another writing: base64, hex, percent signs, entities, escapes, bits, and characters that hide it.

use std::sync::LazyLock;

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use regex::Regex;

use super::traced::Traced;

/// A writing: how its runs look, and what one says. Runs that say nothing readable are left alone.
struct Encoding {
    how: &'static str,
    pattern: &'static str,
    read: fn(&str) -> Option<String>,
    /// Without one of these there is no run of it; what there need not be anything of has none named.
    needs: &'static [&'static str],
    /// What was decoded stands in the text in place of the run, with all that is around it; else it stands alone.
    in_place: bool,
}

const ENCODINGS: [Encoding; 9] = [
    Encoding {
        how: "base64",
        pattern: r"[A-Za-z0-9+/_-]{8,}(?:[ \t]*\r?\n[ \t>]*[A-Za-z0-9+/_-]{8,})*[A-Za-z0-9+/_=-]*",
        read: base64,
        needs: &[],
        in_place: true,
    },
    Encoding { how: "base32", pattern: r"\b[A-Z2-7]{16,}={0,6}", read: base32, needs: &[], in_place: true },
    Encoding {
        how: "hex",
        pattern: r"(?:\b(?:0x)?[0-9a-fA-F]{2}(?:[ :,-]{0,2}(?:0x)?[0-9a-fA-F]{2}){5,}\b)",
        read: hex_pairs,
        needs: &[],
        in_place: true,
    },
    Encoding {
        how: "binary",
        pattern: r"\b[01]{7,8}(?:[ ,]{0,2}[01]{7,8}){3,}\b",
        read: bits,
        needs: &["0110", "0111", "0010", "1100", "1101"],
        in_place: true,
    },
    Encoding { how: "character codes", pattern: r"\b[0-9]{2,3}(?:[ ,;]{1,2}[0-9]{2,3}){5,}\b", read: codes, needs: &[], in_place: true },
    Encoding { how: "url", pattern: r"[^\s%]{0,40}(?:(?:%[0-9A-Fa-f]{2})+[^\s%]{0,40}){3,}", read: percent, needs: &["%"], in_place: true },
    Encoding {
        how: "html entities",
        pattern: r"[A-Za-z ]{0,20}(?:&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});[A-Za-z ]{0,20}){3,}",
        read: entities,
        needs: &["&#", "&shy;", "&zw", "&Zero", "&NoBreak;", "&lrm;", "&rlm;"],
        in_place: true,
    },
    Encoding {
        how: "escapes",
        pattern: r"(?:[A-Za-z ]{0,20}(?:\\u\{?[0-9a-fA-F]{4,6}\}?|\\x[0-9a-fA-F]{2}|\\[0-3][0-7]{2}|\\U[0-9a-fA-F]{8}|U\+[0-9A-Fa-f]{4,6} ?)){3,}[A-Za-z ]{0,20}",
        read: escapes,
        needs: &["\\", "U+"],
        in_place: true,
    },
    Encoding {
        how: "hidden characters",
        pattern: r"[\x{E0020}-\x{E007E}]{3,}|[\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}]{3,}|[\x{200b}\x{200c}\x{200d}\x{2060}\x{2062}\x{2063}\x{feff}]{24,}",
        read: hidden,
        needs: &[],
        in_place: false,
    },
];

static PATTERNS: LazyLock<Vec<(Option<Regex>, &'static Encoding)>> =
    LazyLock::new(|| ENCODINGS.iter().map(|encoding| (Regex::new(encoding.pattern).ok(), encoding)).collect());

/// For each writing that the text has readable runs of: the text with them decoded.
pub(super) fn read(text: &Traced) -> Vec<(&'static str, Traced)> {
    PATTERNS.iter().filter_map(|(pattern, encoding)| Some((encoding.how, one(text, pattern.as_ref()?, encoding)?))).collect()
}

fn one(text: &Traced, pattern: &Regex, encoding: &Encoding) -> Option<Traced> {
    let whole = text.text();
    if !encoding.needs.is_empty() && !encoding.needs.iter().any(|sign| whole.contains(sign)) {
        return None;
    }
    let mut read = Traced::default();
    let (mut done, mut found) = (0, false);
    for hit in pattern.find_iter(whole) {
        let place = hit.range();
        let Some(decoded) = (encoding.read)(&whole[place.clone()]) else { continue };
        if encoding.in_place {
            read.push_from(text, done..place.start);
        } else if found {
            read.push(' ', text.source(place.clone()));
        }
        read.push_str(&decoded, &text.source(place.clone()));
        done = place.end;
        found = true;
    }
    if encoding.in_place && found {
        read.push_from(text, done..whole.len());
    }
    found.then_some(read)
}

/// ASCII that hidden characters of a text spell, for reports. At most `limit` characters.
pub(crate) fn hidden_text(text: &str, limit: usize) -> Option<String> {
    hidden(text).map(|spelled| spelled.chars().take(limit).collect())
}

/// Whether bytes are a text that somebody would read: UTF-8, nearly all of it letters, digits, spaces and common signs.
fn readable(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    let (mut all, mut letters, mut odd) = (0_usize, 0_usize, 0_usize);
    for c in text.chars() {
        all += 1;
        letters += usize::from(c.is_alphabetic());
        odd += usize::from(c.is_control() && !c.is_whitespace());
    }
    (all >= 4 && letters * 2 >= all && odd == 0).then_some(text)
}

/// As [`readable`], and with the look of words: random bytes that happen to be letters have none.
fn wordy(bytes: Vec<u8>) -> Option<String> {
    if bytes.len() >= 16 && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-%".contains(byte)) {
        return String::from_utf8(bytes).ok(); // Encoded again.
    }
    let text = readable(bytes)?;
    let ascii = text.chars().filter(char::is_ascii).count();
    let vowels = text.chars().filter(|c| matches!(c.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u')).count();
    (ascii * 10 < text.chars().count() * 9 || vowels * 8 >= ascii).then_some(text)
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::Indifferent);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const FOR_URLS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

fn base64(run: &str) -> Option<String> {
    let mut packed: String = run.chars().filter(|c| !c.is_whitespace() && !matches!(c, '=' | '>')).collect();
    // Words, paths and names of programs are made of these characters too.
    let (lower, upper) = (packed.chars().any(|c| c.is_ascii_lowercase()), packed.chars().any(|c| c.is_ascii_uppercase()));
    if packed.len() < 12 || !lower || !upper {
        return None;
    }
    if packed.len() % 4 == 1 {
        packed.pop();
    }
    let engine = if packed.contains(['-', '_']) { &FOR_URLS } else { &PLAIN };
    wordy(engine.decode(packed).ok()?)
}

fn base32(run: &str) -> Option<String> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for c in run.bytes().filter(|c| *c != b'=') {
        let value = if c.is_ascii_uppercase() { c - b'A' } else { c - b'2' + 26 };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    wordy(bytes)
}

fn hex_pairs(run: &str) -> Option<String> {
    let digits: String = run.replace("0x", "").chars().filter(char::is_ascii_hexdigit).collect();
    wordy(hex::decode(digits).ok()?)
}

fn bits(run: &str) -> Option<String> {
    let digits: Vec<u8> = run.bytes().filter(|c| matches!(c, b'0' | b'1')).map(|c| c - b'0').collect();
    let groups: Vec<&str> = run.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let width = if groups.len() > 1 && groups.iter().all(|group| group.len() == 7) { 7 } else { 8 };
    wordy(digits.chunks_exact(width).map(|bits| bits.iter().fold(0, |byte: u8, bit| byte << 1 | bit)).collect())
}

fn codes(run: &str) -> Option<String> {
    let numbers = run.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let bytes: Option<Vec<u8>> = numbers.map(|number| number.parse().ok().filter(|code| (10..127).contains(code))).collect();
    let bytes = bytes?;
    // Small numbers in a table are no text: letters begin at 65.
    let letters = bytes.iter().filter(|byte| byte.is_ascii_alphabetic() || **byte == b' ').count();
    (letters * 10 >= bytes.len() * 9).then_some(())?;
    wordy(bytes)
}

fn percent(run: &str) -> Option<String> {
    let bytes = run.as_bytes();
    let (mut decoded, mut at, mut letters) = (Vec::with_capacity(bytes.len()), 0, 0);
    while at < bytes.len() {
        let pair = run.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        letters += usize::from(pair.is_some_and(|byte| byte.is_ascii_alphabetic() || byte >= 0x80));
        decoded.push(pair.unwrap_or(bytes[at]));
        at += if pair.is_some() { 3 } else { 1 };
    }
    // Spaces in addresses are written so by everyone; letters are by those who hide them, or who write other scripts.
    if run.contains("://") && letters < 3 {
        return None;
    }
    readable(decoded)
}

fn entities(run: &str) -> Option<String> {
    let (mut decoded, mut rest, mut numeric) = (String::new(), run, 0);
    while let Some(at) = rest.find('&') {
        decoded.push_str(&rest[..at]);
        let end = rest[at..].find(';')? + at;
        let name = &rest[at + 1..end];
        let number = name.strip_prefix('#').map(|number| match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => number.parse(),
        });
        match (number, name) {
            (Some(number), _) => {
                numeric += 1;
                decoded.push(char::from_u32(number.ok()?)?);
            }
            (None, "amp") => decoded.push('&'),
            (None, "lt") => decoded.push('<'),
            (None, "gt") => decoded.push('>'),
            (None, "quot") => decoded.push('"'),
            (None, "apos") => decoded.push('\''),
            (None, "nbsp" | "Tab" | "NewLine" | "ensp" | "emsp" | "thinsp") => decoded.push(' '),
            // Nothing that is seen.
            (None, "shy" | "zwj" | "zwnj" | "ZeroWidthSpace" | "NoBreak" | "lrm" | "rlm") => numeric += 1,
            _ => decoded.push_str(&rest[at..=end]),
        }
        rest = &rest[end + 1..];
    }
    decoded.push_str(rest);
    (numeric >= 3).then_some(())?;
    readable(decoded.into_bytes())
}

fn escapes(run: &str) -> Option<String> {
    static ESCAPE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"\\u\{?([0-9a-fA-F]{4,6})\}?|\\x([0-9a-fA-F]{2})|\\([0-3][0-7]{2})|\\U([0-9a-fA-F]{8})|U\+([0-9A-Fa-f]{4,6}) ?").ok()
    });
    let (mut units, mut done) = (Vec::<u16>::new(), 0);
    for hit in ESCAPE.as_ref()?.captures_iter(run) {
        let place = hit.get(0)?;
        units.extend(run[done..place.start()].encode_utf16());
        let radix = if hit.get(3).is_some() { 8 } else { 16 };
        let digits = (1..=5).find_map(|group| hit.get(group))?.as_str();
        let code = u32::from_str_radix(digits, radix).ok()?;
        match (u16::try_from(code), char::from_u32(code)) {
            (Ok(unit), _) => units.push(unit),
            (Err(_), Some(c)) => units.extend(c.encode_utf16(&mut [0; 2]).iter()),
            (Err(_), None) => return None,
        }
        done = place.end();
    }
    units.extend(run[done..].encode_utf16());
    readable(String::from_utf16(&units).ok()?.into_bytes())
}

/// Tag characters are ASCII moved up; selectors are bytes; two invisible characters are the bits of bytes.
fn hidden(run: &str) -> Option<String> {
    let tags: Vec<u8> = run.chars().filter(|c| matches!(c, '\u{e0020}'..='\u{e007e}')).map(|c| (c as u32 - 0xe0000) as u8).collect();
    if tags.len() >= 3 {
        return readable(tags);
    }
    let bytes: Vec<u8> = run
        .chars()
        .filter_map(|c| match c {
            '\u{fe00}'..='\u{fe0f}' => u8::try_from(c as u32 - 0xfe00).ok(),
            '\u{e0100}'..='\u{e01ef}' => u8::try_from(c as u32 - 0xe0100 + 16).ok(),
            _ => None,
        })
        .collect();
    if bytes.len() >= 3 {
        return readable(bytes);
    }
    let invisible: Vec<char> = run.chars().filter(|c| super::is_invisible(*c)).collect();
    let mut kinds = invisible.clone();
    kinds.sort_unstable();
    kinds.dedup();
    let [zero, one] = kinds[..] else { return None };
    [zero, one].iter().find_map(|set| {
        let bits: Vec<u8> = invisible.iter().map(|c| u8::from(c == set)).collect();
        [8, 7]
            .iter()
            .find_map(|width| wordy(bits.chunks_exact(*width).map(|bits| bits.iter().fold(0, |byte: u8, bit| byte << 1 | bit)).collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Vec<String> {
        read(&Traced::of(text)).into_iter().map(|(how, read)| format!("{how}: {}", read.text())).collect()
    }

    #[test]
    fn writings_are_read() {
        assert_eq!(decoded("do aWdub3JlIGFsbCBydWxlcw== now"), ["base64: do ignore all rules now"]);
        assert_eq!(decoded("69676e6f726520616c6c"), ["hex: ignore all"]);
        assert_eq!(decoded("69 67 6e 6f 72 65 20 61"), ["hex: ignore a"]);
        assert_eq!(decoded("01101001 01100111 01101110 01101111 01110010 01100101"), ["binary: ignore"]);
        assert_eq!(decoded("105 103 110 111 114 101"), ["character codes: ignore"]);
        assert_eq!(decoded("%69%67%6e%6f%72%65 all"), ["url: ignore all"]);
        assert_eq!(decoded("&#105;&#103;&#110;&#x6f;re all"), ["html entities: ignore all"]);
        assert_eq!(decoded(r"\u0069\u0067\u006eore"), ["escapes: ignore"]);
        assert_eq!(decoded("NFTW433SMUQGC3DMEBZHK3DFOM======"), ["base32: ignore all rules"]);
    }

    #[test]
    fn what_nobody_sees_is_read() {
        let tags: String = "ignore".chars().map(|c| char::from_u32(0xe0000 + c as u32).unwrap()).collect();
        assert_eq!(decoded(&format!("hi{tags}")), ["hidden characters: ignore"]);
        let bits: String =
            "ignore".bytes().flat_map(|b| (0..8).rev().map(move |at| if b >> at & 1 == 1 { '\u{200c}' } else { '\u{200b}' })).collect();
        assert_eq!(decoded(&format!("hi{bits}")), ["hidden characters: ignore"]);
    }

    #[test]
    fn what_only_looks_encoded_is_left() {
        for text in [
            "commit 3f786850e387550fdab836ed7e6dc881de23001b",
            "de305d54-75b4-431b-adb2-eb6b9e546014",
            "https://example.org/a%20b%20c%20d",
            "AbstractSingletonProxyFactoryBean",
            "if (a &lt; b &amp;&amp; c &gt; d)",
            "12 34 56 78 90 12 34",
            "/usr/local/lib/Frameworks/Versions",
            r"C:\users\name",
        ] {
            assert!(decoded(text).is_empty(), "{:?}", decoded(text));
        }
    }
}
