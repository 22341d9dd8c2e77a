//! The pages, and what stands on them.

use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every page that people read, by its path in the checkout.
pub fn all() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/README.md"].map(String::from).into();
    for folder in ["docs", "packaging"] {
        let Ok(entries) = std::fs::read_dir(repository().join(folder)) else { continue };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    pages.sort();
    pages
}

/// What stands on a page.
#[derive(Default)]
pub struct Page {
    /// The anchors of its headings, as GitHub and mdBook make them.
    pub anchors: Vec<String>,
    pub links: Vec<String>,
    /// Language and text of its code blocks.
    pub blocks: Vec<(String, String)>,
}

pub fn read(path: &str) -> Page {
    let text = std::fs::read_to_string(repository().join(path)).unwrap();
    let (mut page, mut heading, mut block) = (Page::default(), None::<String>, None::<(String, String)>);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take().map(|text| anchor(&text))),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => page.links.push(dest_url.into_string()),
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = if let CodeBlockKind::Fenced(name) = kind { name.into_string() } else { String::new() };
                block = Some((language, String::new()));
            }
            Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, block)) = &mut block {
                    block.push_str(&text);
                } else if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.trim().replace(' ', "-")
}

/// Compares a reference with what the code says, or writes it.
pub fn is_fresh(path: &str, wanted: &str) {
    let file = repository().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, wanted).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = there.lines().zip(wanted.lines()).position(|(there, wanted)| there != wanted).map_or(0, |line| line + 1);
    assert!(there == wanted, "{path} is stale, from line {differs}: UPDATE_DOCS=1 cargo test --release --workspace --test docs");
}
