//! The JSON Schema of a manifest, for editors: `docs/manifest.schema.json`.

use serde_json::{Map, Value, json};

use crate::{
    pages::{is_fresh, repository},
    rust_types::{Member, Type, Types},
};

/// Of the whole manifest. Types that the manifest does not reach are left out.
fn schema(types: &Types) -> Value {
    let mut definitions = Map::new();
    let mut root = of_type(types, &types.0["Manifest"], &mut definitions);
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "llama-stack distribution manifest".into();
    definitions.sort_keys();
    root["$defs"] = definitions.into();
    root
}

fn of_type(types: &Types, one: &Type, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = if one.serde.contains("try_from = \"String\"") {
        json!({ "type": "string" })
    } else if one.is_enum {
        of_enum(types, one, definitions)
    } else {
        let mut properties = Map::new();
        for member in &one.members {
            properties.insert(member.name.clone(), of_member(types, member, definitions));
        }
        let required: Vec<&str> = one.members.iter().filter(|member| !one.optional(member)).map(|member| member.name.as_str()).collect();
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    };
    if !one.doc.is_empty() {
        schema["description"] = one.doc.clone().into();
    }
    schema
}

fn of_enum(types: &Types, one: &Type, definitions: &mut Map<String, Value>) -> Value {
    let words: Vec<&str> = one.members.iter().filter(|member| member.holds.is_empty()).map(|member| member.name.as_str()).collect();
    let mut choices = vec![json!({ "enum": words })];
    for member in one.members.iter().filter(|member| !member.holds.is_empty()) {
        let held = of_name(types, &member.holds, definitions);
        choices.push(
            json!({ "type": "object", "properties": { &member.name: held }, "required": [&member.name], "additionalProperties": false }),
        );
    }
    if choices.len() == 1 { choices.remove(0) } else { json!({ "oneOf": choices }) }
}

fn of_member(types: &Types, member: &Member, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = of_name(types, &member.holds, definitions);
    if !member.doc.is_empty() {
        schema["description"] = member.doc.clone().into();
    }
    schema
}

/// Of a type by its name in the source.
fn of_name(types: &Types, name: &str, definitions: &mut Map<String, Value>) -> Value {
    let inside = |outer: &str| name.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("Option<") {
        return of_name(types, inner, definitions);
    }
    if let Some(inner) = inside("Vec<").or_else(|| inside("BTreeSet<")) {
        return json!({ "type": "array", "items": of_name(types, inner, definitions) });
    }
    if let Some(inner) = inside("BTreeMap<String, ").or_else(|| inside("HashMap<String, ")) {
        return json!({ "type": "object", "additionalProperties": of_name(types, inner, definitions) });
    }
    match name {
        "String" | "PathBuf" | "Url" => json!({ "type": "string" }),
        "bool" => json!({ "type": "boolean" }),
        "u8" | "u16" | "u32" | "u64" | "usize" => json!({ "type": "integer", "minimum": 0 }),
        "i32" | "i64" => json!({ "type": "integer" }),
        "f32" | "f64" => json!({ "type": "number" }),
        name => {
            let Some(one) = types.get(name) else { return json!({}) };
            if !definitions.contains_key(name) {
                definitions.insert(name.to_owned(), Value::Null);
                let schema = of_type(types, one, definitions);
                definitions.insert(name.to_owned(), schema);
            }
            json!({ "$ref": format!("#/$defs/{name}") })
        }
    }
}

#[test]
fn the_schema_is_that_of_the_types() {
    let mut text = serde_json::to_string_pretty(&schema(&Types::of_the_manifest())).unwrap();
    text.push('\n');
    is_fresh("docs/manifest.schema.json", &text);
}

#[test]
fn the_schema_takes_what_the_server_takes_and_refuses_what_it_refuses() {
    let schema = jsonschema::validator_for(&schema(&Types::of_the_manifest())).unwrap();
    for entry in std::fs::read_dir(repository().join("distributions")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let manifest: Value = serde_saphyr::from_str(&text).unwrap();
        assert!(schema.is_valid(&manifest), "{:?}", schema.iter_errors(&manifest).map(|error| error.to_string()).collect::<Vec<_>>());
    }
    let good =
        json!({ "version": 1, "name": "t", "store": { "durability": "process" }, "agents": { "declared": { "a": { "model": "m" } } } });
    assert!(schema.is_valid(&good));
    for bad in [
        json!({ "name": "t" }),
        json!({ "version": 1, "name": "t", "sever": {} }),
        json!({ "version": 1, "name": "t", "store": { "durability": "none" } }),
        json!({ "version": 1, "name": "t", "providers": { "tools": [{ "id": "a" }] } }),
    ] {
        assert!(!schema.is_valid(&bad), "{bad}");
        assert!(llama_stack_core::Manifest::parse_with(&bad.to_string(), "m.yaml", &|_| None).is_err(), "{bad}");
    }
}
