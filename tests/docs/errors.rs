//! `docs/errors.md`: every reason that the code gives is on the page, and every reason on the page is one that it gives.

use std::{collections::BTreeSet, path::Path};

use crate::pages::repository;

/// The program's source, without its tests.
fn sources() -> Vec<String> {
    let mut texts = Vec::new();
    for folder in ["services", "stack-cli/src"] {
        gather(&repository().join(folder), &mut texts);
    }
    texts
}

fn gather(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "node_modules"].contains(&name.as_str()) {
                gather(&path, texts);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            texts.extend(text.split("#[cfg(test)]\nmod tests {").next().map(String::from));
        }
    }
}

/// Reasons that are written where they are given. Those of constants and of tables are found from the page's side alone.
fn given(code: &str) -> impl Iterator<Item = &str> {
    code.split("with_reason(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
}

/// The first cells of the page's tables.
fn told() -> BTreeSet<String> {
    let page = std::fs::read_to_string(repository().join("docs/errors.md")).unwrap();
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').step_by(2)).filter(|reason| !reason.is_empty()).map(String::from).collect()
}

#[test]
fn what_to_do_is_told_of_every_reason_that_the_code_gives() {
    let (sources, told) = (sources(), told());
    let missing: BTreeSet<&str> = sources.iter().flat_map(|code| given(code)).filter(|reason| !told.contains(*reason)).collect();
    assert!(missing.is_empty(), "docs/errors.md does not say what to do about {missing:?}");
}

#[test]
fn every_reason_that_is_told_is_one_that_the_code_gives() {
    let (code, told) = (sources().concat(), told());
    // Two families are made of the name of a kind.
    let is_made = |reason: &str| reason.ends_with("_not_found") || reason.starts_with("duplicate_");
    let unknown: Vec<&String> = told.iter().filter(|reason| !is_made(reason) && !code.contains(&format!("\"{reason}\""))).collect();
    assert!(unknown.is_empty(), "docs/errors.md tells of {unknown:?}, which nothing gives");
    assert!(told.len() > 150, "only {} reasons were found on the page", told.len());
}
