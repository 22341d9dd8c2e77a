//! `${env.NAME}` and `${env.NAME:=default}` in the strings of a manifest.

use serde_json::Value;

use super::Lines;
use crate::Result;

/// Expands strings in place. What a variable holds stays a string: it cannot add keys.
pub(super) fn expand(value: &mut Value, lines: &Lines, lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    walk(value, String::new(), lines, lookup)
}

fn walk(value: &mut Value, path: String, lines: &Lines, lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    match value {
        Value::String(text) if text.contains("${env.") => *text = expanded(text, &path, lines, lookup)?,
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, format!("{path}[{index}]"), lines, lookup)?;
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                walk(item, if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, lines, lookup)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn expanded(text: &str, path: &str, lines: &Lines, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${env.") {
        out.push_str(&rest[..start]);
        let inside = &rest[start + "${env.".len()..];
        let end = inside.find('}').ok_or_else(|| lines.error(path, "`${env.` without its `}`"))?;
        let (name, default) = inside[..end].split_once(":=").map_or((&inside[..end], None), |(name, default)| (name, Some(default)));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(lines.error(path, &format!("{name:?} is not the name of an environment variable")));
        }
        // An empty variable takes the default as well, as in a shell's `:=`.
        match (lookup(name).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(lines.error(path, &format!("the environment variable {name} is not set, and there is no default")));
            }
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}
