//! The arguments of a call as Cedar can hold them: by path, each path in the table of its type.
//!
//! Cedar's values have types that are known beforehand and arguments are any JSON, so a record of them could not be
//! checked against a schema. Tags can: the checker even insists on `hasTag` before `getTag`, so a policy cannot fail
//! because an argument is missing.

use std::collections::BTreeSet;

use cedar_policy::RestrictedExpression;
use serde_json::{Number, Value};

/// Objects and arrays within each other.
const DEPTH: usize = 8;
/// Strings, numbers and booleans of one call.
const LEAVES: usize = 256;
/// Of one string. A pattern of `like` costs its length times this.
const STRING: usize = 8 << 10;
/// Of all strings and paths together.
const BYTES: usize = 64 << 10;
/// Beyond this Cedar's decimal, a 64-bit integer of ten-thousandths, ends.
const DECIMAL: f64 = 922_337_203_685_477.0;

type Tags = Vec<(String, RestrictedExpression)>;

/// What can be read of the arguments.
#[derive(Debug, Default)]
pub(crate) struct Arguments<'a> {
    pub(crate) text: Tags,
    pub(crate) whole: Tags,
    pub(crate) decimals: Tags,
    pub(crate) lists: Tags,
    /// Something was left out.
    pub(crate) unreadable: bool,
    /// The paths that a policy asks for. None: it may ask for any.
    wanted: Option<&'a BTreeSet<String>>,
    leaves: usize,
    bytes: usize,
}

impl<'a> Arguments<'a> {
    /// All is looked at, and what is `wanted` is kept: whether something is unreadable does not depend on what is asked.
    pub(crate) fn of(arguments: &Value, wanted: Option<&'a BTreeSet<String>>) -> Self {
        let mut read = Self { wanted, ..Self::default() };
        match arguments {
            Value::Null => {}
            Value::Object(_) => read.walk(&mut String::new(), arguments, 0),
            _ => read.unreadable = true,
        }
        read
    }

    /// `path` is as it was when this returns.
    fn walk(&mut self, path: &mut String, value: &Value, depth: usize) {
        match value {
            // As good as absent, to a tool and so to a policy.
            Value::Null => {}
            Value::Object(_) | Value::Array(_) if depth == DEPTH => self.unreadable = true,
            Value::Object(map) => {
                for (key, value) in map {
                    // `{"a.b": 1}` must not pass for `{"a": {"b": 1}}`.
                    if key.is_empty() || key.contains(['.', '[', ']']) {
                        self.unreadable = true;
                        continue;
                    }
                    let length = path.len();
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(key);
                    self.walk(path, value, depth + 1);
                    path.truncate(length);
                }
            }
            Value::Array(items) => self.array(path, items, depth),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                if self.fits(path, value) {
                    let wanted = self.wants(path);
                    if wanted {
                        self.text.push((path.clone(), text(value)));
                    }
                    if let Value::Number(number) = value {
                        self.number(path, number, wanted);
                    }
                }
            }
        }
    }

    fn array(&mut self, path: &mut String, items: &[Value], depth: usize) {
        if items.len() > LEAVES {
            self.unreadable = true;
            return;
        }
        // A list that lacks what it really holds would pass for a harmless one: it is all there or not at all.
        if items.iter().all(|item| self.fits(path, item)) && self.wants(path) {
            self.lists.push((path.clone(), RestrictedExpression::new_set(items.iter().map(text))));
        }
        let length = path.len();
        for (index, item) in items.iter().enumerate() {
            path.push_str(&format!("[{index}]"));
            self.walk(path, item, depth + 1);
            path.truncate(length);
        }
    }

    fn wants(&self, path: &str) -> bool {
        self.wanted.is_none_or(|wanted| wanted.contains(path))
    }

    /// Whether it is a string, boolean or number for which there is still room.
    fn fits(&mut self, path: &str, value: &Value) -> bool {
        let length = match value {
            Value::String(text) => text.len(),
            Value::Bool(_) | Value::Number(_) => 0,
            _ => return false,
        };
        self.leaves += 1;
        self.bytes = self.bytes.saturating_add(path.len()).saturating_add(length);
        let fits = length <= STRING && self.leaves <= LEAVES && self.bytes <= BYTES;
        self.unreadable |= !fits;
        fits
    }

    fn number(&mut self, path: &str, number: &Number, wanted: bool) {
        let float = number.as_f64().filter(|float| float.abs() < DECIMAL);
        // 5.0 is 5 to most tools.
        #[allow(clippy::cast_possible_truncation, reason = "a whole number below DECIMAL fits")]
        let whole = number.as_i64().or_else(|| float.filter(|float| float.fract() == 0.0).map(|float| float as i64));
        if !wanted && whole.is_some() {
            return;
        }
        let decimal = float.map(|float| (format!("{float:.4}"), float)).filter(|(text, float)| text.parse() == Ok(*float));
        if whole.is_none() && decimal.is_none() {
            self.unreadable = true;
        }
        if !wanted {
            return;
        }
        if let Some(whole) = whole {
            self.whole.push((path.to_owned(), RestrictedExpression::new_long(whole)));
        }
        if let Some((text, _)) = decimal {
            self.decimals.push((path.to_owned(), RestrictedExpression::new_decimal(text)));
        }
    }
}

/// Of a string, boolean or number.
fn text(value: &Value) -> RestrictedExpression {
    RestrictedExpression::new_string(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(arguments: &Value) -> Arguments<'static> {
        Arguments::of(arguments, None)
    }

    fn paths(tags: &Tags) -> Vec<&str> {
        tags.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn each_argument_is_in_the_tables_of_its_type() {
        let read = read(&json!({
            "url": "u", "n": 5, "half": 0.5, "five": 5.0, "on": true, "none": null,
            "to": ["a", "b"], "nobody": [], "filter": { "tags": [{ "name": "x" }] },
        }));
        assert!(!read.unreadable);
        assert_eq!(paths(&read.text), ["url", "n", "half", "five", "on", "to[0]", "to[1]", "filter.tags[0].name"]);
        assert_eq!(paths(&read.whole), ["n", "five"]);
        assert_eq!(paths(&read.decimals), ["n", "half", "five"]);
        assert_eq!(paths(&read.lists), ["to", "nobody"]);
    }

    #[test]
    fn what_cannot_be_held_is_left_out_and_said() {
        let deep = (0..1_000).fold(json!("x"), |inner, _| json!({ "a": inner }));
        let many: Vec<_> = (0..300).collect();
        for (arguments, text) in [
            (json!("text"), vec![]),
            (json!(["a"]), vec![]),
            (deep, vec![]),
            (json!({ "a": many, "b": 1 }), vec!["b"]),
            (json!({ "a": "x".repeat(STRING + 1), "b": 1 }), vec!["b"]),
            (json!({ "a": 1e300 }), vec!["a"]),
            (json!({ "a": u64::MAX }), vec!["a"]),
            (json!({ "a": 0.00001 }), vec!["a"]),
            (json!({ "": { "b": 1 }, "a.b": 1, "a[0]": 2, "b": 3 }), vec!["b"]),
        ] {
            let read = read(&arguments);
            assert!(read.unreadable, "{arguments}");
            assert!(Arguments::of(&arguments, Some(&BTreeSet::new())).unreadable, "{arguments}");
            assert_eq!(paths(&read.text), text, "{arguments}");
            assert!(read.lists.is_empty(), "{arguments}");
        }
    }

    #[test]
    fn all_strings_together_are_bounded() {
        let strings: serde_json::Map<_, _> = (0..20).map(|n| (format!("s{n}"), json!("x".repeat(STRING)))).collect();
        let read = read(&Value::Object(strings));
        assert!(read.unreadable && read.text.len() < 8, "{}", read.text.len());
    }

    #[test]
    fn a_list_is_whole_or_absent() {
        let read = read(&json!({ "to": ["a", "x".repeat(STRING + 1)], "mixed": ["a", {}], "holes": ["a", null] }));
        assert!(read.unreadable);
        assert_eq!(paths(&read.lists), Vec::<&str>::new());
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let wanted = ["a.b".to_owned(), "to".to_owned()].into();
        let read = Arguments::of(&json!({ "a": { "b": 5, "c": 6 }, "to": ["x"], "cc": ["y"] }), Some(&wanted));
        assert!(!read.unreadable);
        assert_eq!((paths(&read.text), paths(&read.whole), paths(&read.lists)), (vec!["a.b"], vec!["a.b"], vec!["to"]));
    }
}
