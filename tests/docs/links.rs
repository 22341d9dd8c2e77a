//! Links within the repository.

use std::collections::HashMap;

use crate::pages::{self, repository};

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut anchors: HashMap<String, Vec<String>> = HashMap::new();
    let mut broken = Vec::new();
    for page in pages::all() {
        for link in pages::read(&page).links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = if path.is_empty() { page.clone() } else { joined(folder, path) };
            if !repository().join(&target).exists() {
                broken.push(format!("{page}: {link}"));
            } else if let Some(anchor) = anchor {
                let there = anchors.entry(target.clone()).or_insert_with(|| pages::read(&target).anchors);
                if !there.iter().any(|heading| heading == anchor) {
                    broken.push(format!("{page}: {link}: no such heading"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A relative link from a folder, as a path in the checkout.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn the_book_has_every_page() {
    const SUMMARY: &str = "docs/SUMMARY.md";
    let listed = pages::read(SUMMARY).links;
    let mut missing: Vec<String> = pages::all()
        .into_iter()
        .filter_map(|page| page.strip_prefix("docs/").map(String::from))
        .filter(|page| page != "SUMMARY.md" && !listed.contains(page))
        .collect();
    if std::env::var_os("UPDATE_DOCS").is_some() && !missing.is_empty() {
        let mut summary = std::fs::read_to_string(repository().join(SUMMARY)).unwrap();
        for page in missing.drain(..) {
            let text = std::fs::read_to_string(repository().join("docs").join(&page)).unwrap();
            let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(&page);
            summary.push_str(&format!("- [{title}]({page})\n"));
        }
        std::fs::write(repository().join(SUMMARY), summary).unwrap();
    }
    assert!(missing.is_empty(), "{SUMMARY} lacks {missing:?}: UPDATE_DOCS=1 adds them");
}

/// Every program of `examples/` has its line.
#[test]
fn the_list_of_examples_has_every_program() {
    let listed = pages::read("examples/README.md").links;
    let mut missing = Vec::new();
    for folder in ["python", "notebooks", "typescript", "rust", "apps"] {
        for entry in std::fs::read_dir(repository().join("examples").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let program = [".py", ".ipynb", ".ts", ".rs"].iter().any(|ending| name.ends_with(ending));
            let path = format!("{folder}/{name}");
            // What the others import.
            if program && name != "stubs.py" && !listed.contains(&path) {
                missing.push(path);
            }
        }
    }
    assert!(missing.is_empty(), "examples/README.md lacks {missing:?}");
}
