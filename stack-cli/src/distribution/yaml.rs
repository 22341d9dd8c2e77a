//! Writes values as YAML that people read: blocks, and quotes where YAML would take a string for something else.

use serde_json::Value;

/// Lines of a value below a key, each indented by `depth` steps of two spaces.
pub(super) fn block(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().map(|(key, value)| format!("{indent}{}{}", scalar_text(key), after_key(value, depth))).collect()
        }
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|item| {
                let text = block(item, depth + 1);
                // The first line of an entry stands behind its dash.
                format!("{indent}- {}", text.trim_start())
            })
            .collect(),
        other => format!("{indent}{}\n", flow(other)),
    }
}

fn after_key(value: &Value, depth: usize) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => format!(":\n{}", block(value, depth + 1)),
        Value::Array(items) if !items.is_empty() => {
            let plain = items.iter().all(|item| !item.is_object() && !item.is_array());
            if plain {
                format!(": [{}]\n", items.iter().map(flow).collect::<Vec<_>>().join(", "))
            } else {
                format!(":\n{}", block(value, depth + 1))
            }
        }
        other => format!(": {}\n", flow(other)),
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar_text(text),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// Bare where no reader of YAML can mistake it; else in double quotes, whose escapes are those of JSON.
fn scalar_text(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let word = !text.is_empty() && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain);
    let meaning = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].iter().any(|word| word.eq_ignore_ascii_case(text));
    if word && !meaning { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_as_it_was() {
        let value = json!({
            "name": "a b", "on": "yes", "n": 1, "url": "http://x:1/v1", "empty": {}, "none": null, "words": ["a", "1.5", "no"],
            "list": [ { "id": "x", "config": { "k": "${env.KEY:=}", "deep": [ { "a": [1] } ] } }, "plain", [ "nested" ] ],
        });
        let read: Value = serde_saphyr::from_str(&block(&value, 0)).unwrap();
        assert_eq!(read, value, "{}", block(&value, 0));
    }
}
