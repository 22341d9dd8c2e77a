//! References to the environment: `${env.A:=default}` is the same in both; `${env.A:+value}` is not.

use serde_json::{Map, Value};

use super::Notes;

/// Turns what a manifest cannot say into what it can.
pub(super) fn expand(value: Value, path: &str, notes: &mut Notes) -> Value {
    match value {
        Value::String(text) => Value::String(text_of(&text, path, notes)),
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(index, item)| expand(item, &format!("{path}[{index}]"), notes)).collect()
        }
        Value::Object(map) => {
            let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            Value::Object(map.into_iter().map(|(key, value)| (key.clone(), expand(value, &below(&key), notes))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// `${env.A:+value}` becomes `value`; what follows from that is told.
fn text_of(text: &str, path: &str, notes: &mut Notes) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${env.") {
        out.push_str(&rest[..start]);
        let from = &rest[start..];
        let Some(end) = from.find('}') else { break };
        let (reference, inside) = (&from[..=end], &from["${env.".len()..end]);
        match inside.split_once(":+") {
            Some((variable, value)) => {
                notes.changed(
                    path,
                    format!("was there only where {variable} is set; it is there always now: delete it where you have none"),
                );
                out.push_str(value);
            }
            None => match inside.split_once(":-") {
                // An older way of writing the same.
                Some((variable, default)) => out.push_str(&format!("${{env.{variable}:={default}}}")),
                None => out.push_str(reference),
            },
        }
        rest = &from[end + 1..];
    }
    out.push_str(rest);
    out
}

/// What a text is where no variable is set: for values that have to be looked into.
pub(super) fn default_of(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${env.") {
        out.push_str(&rest[..start]);
        let Some(end) = rest[start..].find('}') else { break };
        out.push_str(rest[start..start + end].split_once(":=").map_or("", |(_, default)| default));
        rest = &rest[start + end + 1..];
    }
    out.push_str(rest);
    out
}

/// Whether a text is nothing but what a variable without a default says.
pub(super) fn is_open(text: &str) -> bool {
    text.contains("${env.") && !text.contains(":=") && default_of(text).is_empty()
}
