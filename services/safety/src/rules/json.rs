//! The strings of a call's arguments as what they say, with where they stand.

use crate::normalise::Traced;

/// A string of a JSON text, and the key that it stands under.
pub(crate) struct JsonString {
    pub(crate) key: String,
    pub(crate) text: Traced,
}

/// The strings that are values, in order. Text that is no JSON has those that can be made out: what judges must not
/// depend on the model's having written it well.
pub(crate) fn strings(json: &str) -> Vec<JsonString> {
    let (mut found, mut key, mut at) = (Vec::new(), String::new(), 0);
    while let Some(open) = json[at..].find('"') {
        let (text, end) = string(json, at + open + 1);
        at = end;
        if json[at..].trim_start().starts_with(':') {
            key = text.text().to_owned();
        } else {
            found.push(JsonString { key: key.clone(), text });
        }
    }
    found
}

/// The string whose first character is at `start`, and where the text goes on behind its closing quote.
fn string(json: &str, start: usize) -> (Traced, usize) {
    let mut text = Traced::default();
    let mut at = start;
    while let Some(c) = json[at..].chars().next() {
        let next = at + c.len_utf8();
        match c {
            '"' => return (text, next),
            '\\' => {
                let (c, end) = escape(json, next);
                if let Some(c) = c {
                    text.push(c, at..end);
                }
                at = end;
            }
            _ => {
                text.push(c, at..next);
                at = next;
            }
        }
    }
    (text, at)
}

/// What stands behind a backslash at `at - 1`, and where it ends.
fn escape(json: &str, at: usize) -> (Option<char>, usize) {
    let Some(c) = json[at..].chars().next() else { return (None, at) };
    let end = at + c.len_utf8();
    let c = match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' | 'f' => ' ',
        'u' => {
            let unit = |at: usize| json.get(at..at + 4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
            let Some(first) = unit(end) else { return (None, end) };
            let second = json.get(end + 4..end + 6).filter(|next| *next == "\\u").and_then(|_| unit(end + 6));
            if let (0xd800..=0xdbff, Some(second)) = (first, second) {
                return (char::decode_utf16([first, second]).next().and_then(Result::ok), end + 10);
            }
            return (char::from_u32(u32::from(first)), end + 4);
        }
        other => other,
    };
    (Some(c), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_and_lead_back() {
        let json = r#"{"to": "a\u0040b.c", "list": ["x\ny", "\ud83d\ude00"], "n": 1}"#;
        let strings = strings(json);
        let said: Vec<(&str, &str)> = strings.iter().map(|string| (string.key.as_str(), string.text.text())).collect();
        assert_eq!(said, [("to", "a@b.c"), ("list", "x\ny"), ("list", "😀")]);
        assert_eq!(&json[strings[0].text.source(1..2)], r"\u0040");
    }

    #[test]
    fn broken_arguments_are_read_as_far_as_they_go() {
        for json in ["{\"a\": \"b", "\"\\", "\"\\u12", "\"\\ud83d\\u", "{\"a\": \"\\ud83dé\""] {
            strings(json);
        }
        assert_eq!(strings("{\"a\": \"b")[0].text.text(), "b");
    }
}
