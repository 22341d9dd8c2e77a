//! `docs/manifest.md`: every key of a manifest, from the types that read it.

use std::fmt::Write as _;

use crate::{
    pages::is_fresh,
    rust_types::{Type, Types},
};

const HEAD: &str = "<!-- Made from the types: UPDATE_DOCS=1 cargo test --release --workspace --test docs -->

# Manifest reference

A manifest is one YAML file. Unknown keys are refused, and every error names file, line and path. In strings, `${env.NAME}`
is an environment variable and `${env.NAME:=default}` one that may be unset. For editors there is a JSON Schema,
[manifest.schema.json](manifest.schema.json); in a file, `# yaml-language-server: $schema=manifest.schema.json` names it.
What a provider's `config` holds is its type's own: [providers.md](providers.md). Keys in **bold** are required.
";

/// The sections, from the manifest down, each type once.
fn reference(types: &Types) -> String {
    let mut order = vec!["Manifest".to_owned()];
    let mut at = 0;
    while at < order.len() {
        if let Some(one) = types.get(&order[at]) {
            for member in &one.members {
                for name in names(&member.holds) {
                    if types.get(name).is_some() && !order.iter().any(|there| there == name) {
                        order.push(name.to_owned());
                    }
                }
            }
        }
        at += 1;
    }
    let mut text = HEAD.to_owned();
    for one in order.iter().filter_map(|name| types.get(name)) {
        section(types, one, &mut text);
    }
    text
}

fn section(types: &Types, one: &Type, text: &mut String) {
    let _ = write!(text, "\n## {}\n\n", one.name);
    if !one.doc.is_empty() {
        let _ = write!(text, "{}\n\n", one.doc);
    }
    if one.serde.contains("try_from = \"String\"") {
        text.push_str("Written as a text.\n");
        return;
    }
    text.push_str(if one.is_enum { "| value | |\n|---|---|\n" } else { "| key | type | |\n|---|---|---|\n" });
    for member in &one.members {
        // A section whose key says nothing says it itself.
        let doc = if member.doc.is_empty() { types.get(&member.holds).map_or("", |held| &held.doc) } else { &member.doc };
        let doc = doc.replace('|', "\\|");
        if one.is_enum {
            let holds = if member.holds.is_empty() { String::new() } else { format!(": {}", shown(types, &member.holds)) };
            let _ = writeln!(text, "| `{}`{holds} | {doc} |", member.name);
        } else {
            let name = if one.optional(member) { format!("`{}`", member.name) } else { format!("**`{}`**", member.name) };
            let _ = writeln!(text, "| {name} | {} | {doc} |", shown(types, &member.holds));
        }
    }
}

/// The words of a type's name.
fn names(holds: &str) -> impl Iterator<Item = &str> {
    holds.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// A type as readers of YAML know it.
fn shown(types: &Types, holds: &str) -> String {
    let inside = |outer: &str| holds.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("Option<") {
        return shown(types, inner);
    }
    if let Some(inner) = inside("Vec<").or_else(|| inside("BTreeSet<")) {
        return format!("list of {}", shown(types, inner));
    }
    if let Some(inner) = inside("BTreeMap<String, ").or_else(|| inside("HashMap<String, ")) {
        return format!("map to {}", shown(types, inner));
    }
    match holds {
        "String" | "PathBuf" | "Url" => "text".into(),
        "bool" => "true or false".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => "whole number".into(),
        "f32" | "f64" => "number".into(),
        name if types.get(name).is_some() => format!("[{name}](#{})", name.to_lowercase()),
        _ => "anything".into(),
    }
}

#[test]
fn the_reference_is_that_of_the_types() {
    is_fresh("docs/manifest.md", &reference(&Types::of_the_manifest()));
}
