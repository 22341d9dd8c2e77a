//! Finds the end of a JSON value that arrives in pieces, without waiting for the whole of it.

use std::ops::Range;

/// Deeper is taken for something that is no JSON: no tool's arguments are.
const DEEPEST: usize = 100;

/// Reads one object or array, byte by byte, and remembers where it is.
///
/// It knows JSON's structure, not the details of numbers: a value that it finds complete is still to be parsed.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonScan {
    /// Of the next byte to read, from where the value begins.
    pub(super) at: usize,
    /// The open brackets, outermost first: true for an object.
    open: Vec<bool>,
    expect: Expect,
    inside: Inside,
}

/// What was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All there is so far.
    Everything,
    /// A key, its quotes included, and in how many brackets it stands.
    Key(Range<usize>, usize),
    /// A value that is a string, likewise.
    Text(Range<usize>, usize),
    /// The value ends before `at`.
    End,
    /// The byte at `at` cannot stand there.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
}

#[derive(Clone, Copy, Debug, Default)]
enum Inside {
    #[default]
    Nothing,
    /// `escape`: 1 after a backslash, 2 to 5 before that many minus one hexadecimal digits.
    Text {
        start: usize,
        key: bool,
        escape: u8,
    },
    Number,
    /// `true`, `false` or `null`: what of it is still to come.
    Word(&'static [u8]),
}

impl JsonScan {
    /// Goes on through `text`, which begins where the value does and has grown since the last call.
    pub(super) fn next(&mut self, text: &str) -> Seen {
        let bytes = text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            let seen = match self.inside {
                Inside::Nothing => self.structure(byte),
                Inside::Text { start, key, escape } => self.text(byte, start, key, escape),
                Inside::Number => self.number(byte),
                Inside::Word(rest) => self.word(byte, rest),
            };
            if let Some(seen) = seen {
                return seen;
            }
        }
        Seen::Everything
    }

    fn structure(&mut self, byte: u8) -> Option<Seen> {
        use Expect::{Colon, CommaOrEnd, Key, KeyOrEnd, Value, ValueOrEnd};
        match (byte, self.expect) {
            (b' ' | b'\t' | b'\r' | b'\n', _) => {}
            (b'{' | b'[', Value | ValueOrEnd) if self.open.len() < DEEPEST => {
                self.open.push(byte == b'{');
                self.expect = if byte == b'{' { KeyOrEnd } else { ValueOrEnd };
            }
            (b'"', Value | ValueOrEnd | Key | KeyOrEnd) if !self.open.is_empty() => {
                let key = matches!(self.expect, Key | KeyOrEnd);
                self.inside = Inside::Text { start: self.at, key, escape: 0 };
            }
            (b'-' | b'0'..=b'9', Value | ValueOrEnd) if !self.open.is_empty() => self.inside = Inside::Number,
            (b't', Value | ValueOrEnd) if !self.open.is_empty() => self.inside = Inside::Word(b"rue"),
            (b'f', Value | ValueOrEnd) if !self.open.is_empty() => self.inside = Inside::Word(b"alse"),
            (b'n', Value | ValueOrEnd) if !self.open.is_empty() => self.inside = Inside::Word(b"ull"),
            (b':', Colon) => self.expect = Value,
            (b',', CommaOrEnd) => self.expect = if self.open.last() == Some(&true) { Key } else { Value },
            (b'}', KeyOrEnd | CommaOrEnd) if self.open.last() == Some(&true) => return self.close(),
            (b']', ValueOrEnd | CommaOrEnd) if self.open.last() == Some(&false) => return self.close(),
            _ => return Some(Seen::Broken),
        }
        self.at += 1;
        None
    }

    fn close(&mut self) -> Option<Seen> {
        self.at += 1;
        self.open.pop();
        self.expect = Expect::CommaOrEnd;
        self.open.is_empty().then_some(Seen::End)
    }

    fn text(&mut self, byte: u8, start: usize, key: bool, escape: u8) -> Option<Seen> {
        let escape = match (escape, byte) {
            (0, b'"') => {
                self.at += 1;
                self.inside = Inside::Nothing;
                self.expect = if key { Expect::Colon } else { Expect::CommaOrEnd };
                let (range, depth) = (start..self.at, self.open.len());
                return Some(if key { Seen::Key(range, depth) } else { Seen::Text(range, depth) });
            }
            (0, b'\\') => 1,
            (0, 0x20..) => 0,
            (1, b'u') => 5,
            (1, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            (2, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => 0,
            (3..=5, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => escape - 1,
            _ => return Some(Seen::Broken),
        };
        self.inside = Inside::Text { start, key, escape };
        self.at += 1;
        None
    }

    fn number(&mut self, byte: u8) -> Option<Seen> {
        match byte {
            b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E' => self.at += 1,
            _ => self.value_is_done(),
        }
        None
    }

    fn word(&mut self, byte: u8, rest: &'static [u8]) -> Option<Seen> {
        match rest.split_first() {
            None => self.value_is_done(),
            Some((next, rest)) if *next == byte => {
                self.inside = Inside::Word(rest);
                self.at += 1;
            }
            Some(_) => return Some(Seen::Broken),
        }
        None
    }

    fn value_is_done(&mut self) {
        self.inside = Inside::Nothing;
        self.expect = Expect::CommaOrEnd;
    }

    /// Forgets the text up to `at`: the next call gets what follows it.
    pub(super) fn forget(&mut self) {
        self.at = 0;
        if let Inside::Text { start, .. } = &mut self.inside {
            *start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> (Seen, usize) {
        let mut scan = JsonScan::default();
        loop {
            match scan.next(text) {
                Seen::Key(..) | Seen::Text(..) => {}
                seen => return (seen, scan.at),
            }
        }
    }

    #[test]
    fn the_end_is_where_the_outermost_bracket_closes() {
        for text in [r#"{"a": "}\"{", "b": [1, -2.5e3, true, null, {}]}"#, "[]", "{ }", r#"["\u00e9", "é"]"#] {
            assert_eq!(scan(&format!("{text} more")), (Seen::End, text.len()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_noticed_at_its_first_wrong_byte() {
        for (text, at) in [
            ("{a", 1),
            ("{\"a\" 1", 5),
            ("[1,]", 3),
            ("{'a'", 1),
            ("[tru,", 4),
            ("{\"a\nb", 3),
            ("[\"\\x", 3),
            ("[1}", 2),
            ("{]", 1),
            ("é", 0),
        ] {
            assert_eq!(scan(text), (Seen::Broken, at), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_array_and_object_that_serde_reads_ends_where_it_ends(text in "[\\[{][\\[\\]{}\",:\\\\a1 é]{0,12}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                let end = text.trim_end().len();
                prop_assert_eq!(scan(&text), (Seen::End, end));
            }
        }
    }
}
