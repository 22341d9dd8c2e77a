//! Calls and literals in Python's syntax, as some models write them: `[f(a='it\'s', b=[1, None])]`.

use std::ops::Range;

const DEEPEST: usize = 100;

/// A call: its name, its arguments as a JSON object, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PythonCall {
    pub(super) name: String,
    pub(super) arguments: String,
    pub(super) range: Range<usize>,
}

/// Finds where a bracket that opens the text closes, skipping strings, as the text arrives.
#[derive(Clone, Debug, Default)]
pub(super) struct BracketScan {
    pub(super) at: usize,
    open: Vec<u8>,
    quote: Option<u8>,
    escaped: bool,
}

impl BracketScan {
    /// True: it closes before `at`. False: the byte at `at` cannot stand there. None: more is needed.
    pub(super) fn next(&mut self, text: &str) -> Option<bool> {
        while let Some(&byte) = text.as_bytes().get(self.at) {
            match (self.quote, byte) {
                (Some(_), _) if self.escaped => self.escaped = false,
                (Some(_), b'\\') => self.escaped = true,
                (Some(quote), _) if byte == quote => self.quote = None,
                // A string in one pair of quotes ends on its line.
                (Some(_), b'\n') => return Some(false),
                (Some(_), _) => {}
                (None, b'\'' | b'"') => self.quote = Some(byte),
                (None, b'[' | b'(' | b'{') if self.open.len() < DEEPEST => self.open.push(byte),
                (None, b'[' | b'(' | b'{') => return Some(false),
                (None, b']' | b')' | b'}') => {
                    let opened = match byte {
                        b']' => b'[',
                        b')' => b'(',
                        _ => b'{',
                    };
                    if self.open.pop() != Some(opened) {
                        return Some(false);
                    }
                    if self.open.is_empty() {
                        self.at += 1;
                        return Some(true);
                    }
                }
                (None, _) => {}
            }
            self.at += 1;
        }
        None
    }
}

/// `[f(a=1), g()]`.
pub(super) fn list(text: &str) -> Option<Vec<PythonCall>> {
    let mut reader = Reader { text, at: 0 };
    reader.expect("[")?;
    let calls = reader.separated(",", "]", Reader::call)?;
    reader.done().then_some(calls)
}

/// `f(a=1); g.call(b=2)`, one per line or with semicolons.
pub(super) fn statements(text: &str) -> Option<Vec<PythonCall>> {
    let mut reader = Reader { text, at: 0 };
    let mut calls = Vec::new();
    while !reader.done() {
        calls.push(reader.call()?);
        // White space, line ends included, is skipped anyway.
        while reader.eat(";") {}
    }
    Some(calls)
}

/// A dictionary or list as JSON.
pub(super) fn literal(text: &str) -> Option<String> {
    let mut reader = Reader { text, at: 0 };
    let mut out = String::new();
    reader.value(&mut out, 0)?;
    reader.done().then_some(out)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.eat(token).then_some(())
    }

    fn done(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty()
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !of(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        (!taken.is_empty()).then_some(taken)
    }

    /// Items up to `end`, a comma after the last allowed.
    fn separated<T>(&mut self, between: &str, end: &str, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        loop {
            if self.eat(end) {
                return Some(items);
            }
            items.push(item(self)?);
            if !self.eat(between) {
                self.expect(end)?;
                return Some(items);
            }
        }
    }

    fn call(&mut self) -> Option<PythonCall> {
        self.skip_space();
        let start = self.at;
        let name = self.take(is_name)?;
        let name = if self.rest().starts_with(".call(") {
            self.at += ".call".len();
            name
        } else {
            name
        };
        self.expect("(")?;
        let mut arguments = String::from("{");
        self.separated(",", ")", |reader| {
            comma(&mut arguments);
            let key = reader.take(|c| c.is_alphanumeric() || c == '_')?;
            arguments.push_str(&quoted(key));
            arguments.push_str(": ");
            reader.expect("=")?;
            reader.value(&mut arguments, 0)
        })?;
        arguments.push('}');
        Some(PythonCall { name: name.to_owned(), arguments, range: start..self.at })
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Option<()> {
        self.skip_space();
        if depth > DEEPEST {
            return None;
        }
        match self.rest().chars().next()? {
            '\'' | '"' => {
                let mut text = String::new();
                while matches!(self.rest().chars().next(), Some('\'' | '"')) {
                    self.string(&mut text)?;
                    self.skip_space();
                }
                out.push_str(&quoted(&text));
            }
            '[' => self.sequence(out, "[", "]", depth)?,
            '(' => self.sequence(out, "(", ")", depth)?,
            '{' => self.dictionary(out, depth)?,
            '-' | '+' | '.' | '0'..='9' => out.push_str(&self.number()?),
            _ => out.push_str(match self.take(char::is_alphanumeric)? {
                "True" | "true" => "true",
                "False" | "false" => "false",
                "None" | "null" => "null",
                _ => return None,
            }),
        }
        Some(())
    }

    fn sequence(&mut self, out: &mut String, start: &str, end: &str, depth: usize) -> Option<()> {
        self.expect(start)?;
        out.push('[');
        let mut first = true;
        self.separated(",", end, |reader| {
            if !std::mem::take(&mut first) {
                out.push_str(", ");
            }
            reader.value(out, depth + 1)
        })?;
        out.push(']');
        Some(())
    }

    fn dictionary(&mut self, out: &mut String, depth: usize) -> Option<()> {
        self.expect("{")?;
        out.push('{');
        let mut first = true;
        self.separated(",", "}", |reader| {
            if !std::mem::take(&mut first) {
                out.push_str(", ");
            }
            let mut key = String::new();
            reader.skip_space();
            reader.string(&mut key)?;
            out.push_str(&quoted(&key));
            out.push_str(": ");
            reader.expect(":")?;
            reader.value(out, depth + 1)
        })?;
        out.push('}');
        Some(())
    }

    /// Digits stay as they are written, so that no precision is lost.
    fn number(&mut self) -> Option<String> {
        let text = self.take(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))?.replace('_', "");
        let text = text.strip_prefix('+').unwrap_or(&text);
        // What Python allows and JSON does not: `.5` and `5.`.
        let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
        let digits = if digits.starts_with('.') { format!("0{digits}") } else { digits.to_owned() };
        let digits = if digits.ends_with('.') { format!("{digits}0") } else { digits };
        let number = format!("{sign}{digits}");
        serde_json::from_str::<serde_json::Number>(&number).ok().map(|_| number)
    }

    /// One string literal, unescaped.
    /// Source: the Python language reference, "String and Bytes literals".
    fn string(&mut self, out: &mut String) -> Option<()> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|(_, c)| c).filter(|c| matches!(c, '\'' | '"'))?;
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next()?.1 {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'v' => out.push('\u{b}'),
                    'a' => out.push('\u{7}'),
                    '\n' => {}
                    escaped @ ('\\' | '\'' | '"') => out.push(escaped),
                    escaped @ ('x' | 'u' | 'U') => {
                        let mut code = hexadecimal(&mut chars, escaped)?;
                        // JSON writes characters beyond 16 bits as two escapes, and models do so here as well.
                        if (0xd800..0xdc00).contains(&code) && chars.next()?.1 == '\\' && chars.next()?.1 == 'u' {
                            let low = hexadecimal(&mut chars, 'u')?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                            code = 0x1_0000 + ((code - 0xd800) << 10) + low;
                        }
                        out.push(char::from_u32(code)?);
                    }
                    // Python keeps the backslash of an escape that it does not know.
                    other => out.extend(['\\', other]),
                },
                '\n' => return None,
                c if c == quote => {
                    self.at += at + c.len_utf8();
                    return Some(());
                }
                c => out.push(c),
            }
        }
        None
    }
}

fn hexadecimal(chars: &mut std::str::CharIndices<'_>, kind: char) -> Option<u32> {
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        _ => 8,
    };
    (0..digits).try_fold(0_u32, |code, _| Some(code.checked_mul(16)? + chars.next()?.1.to_digit(16)?))
}

/// What a tool's name is made of in a call.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn comma(out: &mut String) {
    if out.len() > 1 {
        out.push_str(", ");
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json() {
        let cases = [
            (r"'it\'s'", r#""it's""#),
            (r#""say \"hi\"\n""#, r#""say \"hi\"\n""#),
            (r"'\x41\u00e9\U0001F600 \ud83d\ude00 \d'", r#""Aé😀 😀 \\d""#),
            ("'a' 'b'", r#""ab""#),
            ("[True, False, None, true, null]", "[true, false, null, true, null]"),
            ("(1, -2.5, 1e5, .5, 5., +3, 1_000)", "[1, -2.5, 1e5, 0.5, 5.0, 3, 1000]"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("{'a': {'b': []}, \"c\": ()}", r#"{"a": {"b": []}, "c": []}"#),
        ];
        for (python, json) in cases {
            assert_eq!(literal(python).as_deref(), Some(json), "{python}");
        }
        for broken in ["", "'a", "[1", "{1}", "x", "0x10", "1.2.3", "{'a': 1,, }", "'\\ud800'", "[1] 2"] {
            assert_eq!(literal(broken), None, "{broken}");
        }
    }

    #[test]
    fn all_of_several_calls_are_read() {
        let text = "[f(a='x, )', b=[1, {'c': None}]), g(), h-2(x=1,)]";
        let calls = list(text).unwrap();
        let read: Vec<(&str, &str)> = calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(read, [("f", r#"{"a": "x, )", "b": [1, {"c": null}]}"#), ("g", "{}"), ("h-2", r#"{"x": 1}"#)]);
        assert_eq!(&text[calls[1].range.clone()], "g()");
        assert_eq!(statements("a.call(q=\"1\"); b(q='2')\nc()").unwrap().len(), 3);
        assert_eq!(list("[f('positional')]"), None);
    }
}
