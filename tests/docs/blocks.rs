//! Code blocks of the pages: JSON and YAML parse, and manifests are read as the server reads them.

use llama_stack_core::Manifest;
use serde_json::Value;

use crate::{pages, rust_types::Types};

#[test]
fn json_blocks_are_json() {
    let mut wrong = Vec::new();
    for page in pages::all() {
        for (_, text) in pages::read(&page).blocks.iter().filter(|(language, _)| language == "json") {
            if let Err(error) = serde_json::from_str::<Value>(text) {
                wrong.push(format!("{page}: {error}\n{text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A block is a manifest, or the part of one, where each of its keys is a manifest's.
#[test]
fn manifests_on_the_pages_are_ones_that_the_server_reads() {
    let keys = Types::of_the_manifest().fields("Manifest");
    let (mut wrong, mut read) = (Vec::new(), 0);
    for page in pages::all() {
        for (_, text) in pages::read(&page).blocks.iter().filter(|(language, _)| language == "yaml") {
            let value: Value = match serde_saphyr::from_str(text) {
                Ok(value) => value,
                Err(error) => {
                    wrong.push(format!("{page}: {error}\n{text}"));
                    continue;
                }
            };
            let Some(block) = value.as_object().filter(|block| block.keys().all(|key| keys.contains(key))) else { continue };
            let mut whole = text.clone();
            for (key, line) in [("name", "name: docs\n"), ("version", "version: 1\n")] {
                if !block.contains_key(key) {
                    whole.insert_str(0, line);
                }
            }
            read += 1;
            if let Err(error) = Manifest::parse_with(&whole, &page, &|_| Some("1".into())) {
                wrong.push(format!("{}\n{text}", error.message()));
            }
        }
    }
    assert!(read > 5, "only {read} manifests were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the README shows of a program is what stands in it.
#[test]
fn the_readmes_tool_is_the_examples() {
    let example = std::fs::read_to_string(pages::repository().join("examples/python/custom_tool.py")).unwrap();
    let shown = pages::read("README.md").blocks.into_iter().find(|(_, text)| text.contains("class Weather"));
    let (_, shown) = shown.unwrap();
    assert!(example.contains(&shown), "README.md shows another tool than examples/python/custom_tool.py:\n{shown}");
}
