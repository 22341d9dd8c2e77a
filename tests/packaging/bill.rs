//! The bill of materials and the licences, made from this checkout's lock file.

use std::{collections::HashSet, process::Command};

use serde_json::Value;

use crate::{repository, run, skipped};

/// What `bill.py` prints; `None` where it cannot run here.
fn bill(what: &str) -> Option<String> {
    // `tomllib` came with Python 3.11.
    let (well, why) = run(Command::new("python3").args(["-c", "import tomllib"]));
    if !well {
        skipped("packaging/bill.py", why.trim());
        return None;
    }
    let (well, said) = run(Command::new("python3").arg(repository().join("packaging/bill.py")).arg(what).env("CARGO_NET_OFFLINE", "true"));
    if !well && said.contains("offline") {
        skipped("packaging/bill.py", "packages of another platform were never fetched: cargo fetch");
        return None;
    }
    assert!(well, "{said}");
    Some(said)
}

#[test]
fn the_bill_of_materials_has_what_is_linked_and_nothing_else() {
    let Some(text) = bill("sbom") else { return };
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bill["metadata"]["component"]["name"], "llama-stack");
    let components = bill["components"].as_array().unwrap();
    let names: HashSet<&str> = components.iter().map(|component| component["name"].as_str().unwrap()).collect();
    for linked in ["tokio", "tonic", "llama-cpp-2", "mistralrs", "llama-stack-core"] {
        assert!(names.contains(linked), "{linked} is missing");
    }
    // Of tests, of build scripts, of macros.
    for left_out in ["insta", "proptest", "protox", "serde_derive"] {
        assert!(!names.contains(left_out), "{left_out} is not linked");
    }
    let refs: HashSet<&str> = components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
    assert_eq!(refs.len(), components.len(), "two components have one reference");
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let foreign = !component["name"].as_str().unwrap().starts_with("llama-stack");
        assert!(!foreign || component["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64), "{component}");
    }
    for dependency in bill["dependencies"].as_array().unwrap() {
        assert!(dependency["dependsOn"].as_array().unwrap().iter().all(|on| refs.contains(on.as_str().unwrap())), "{dependency}");
    }
    assert!(!text.contains(repository().to_str().unwrap()), "it has a path of this machine");
}

#[test]
fn licences_of_others_are_there_with_their_texts() {
    let Some(text) = bill("licences") else { return };
    assert!(text.starts_with("# Third-party licences") && !text.contains("| llama-stack"));
    assert!(text.contains("| tokio 1.") && text.contains("Apache License") && text.contains("Permission is hereby granted"));
}
